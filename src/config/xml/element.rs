//! The small tree that a configuration file becomes: elements and attributes with their places, and the other pieces of the
//! file. How a tag is read, and which names are known, is not said here.

/// An element from its start tag on.
#[derive(Debug)]
pub(in crate::config) struct Element {
    /// The name as written; compare it by [`Element::is`].
    pub(in crate::config) name: Vec<u8>,
    /// The offset of the element's `<`.
    pub(in crate::config) offset: usize,
    pub(in crate::config) attributes: Vec<Attribute>,
    pub(in crate::config) children: Vec<Element>,
}

impl Element {
    pub(in crate::config) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The first child with that name: sersync ignores any other.
    pub(in crate::config) fn child(&self, name: &str) -> Option<&Self> {
        self.children(name).next()
    }

    pub(in crate::config) fn children(&self, name: &str) -> impl Iterator<Item = &Self> {
        self.children.iter().filter(move |child| child.is(name))
    }

    pub(in crate::config) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name.eq_ignore_ascii_case(name.as_bytes()))
    }
}

#[derive(Debug)]
pub(in crate::config) struct Attribute {
    pub(in crate::config) name: Vec<u8>,
    pub(in crate::config) offset: usize,
    /// The value with entities resolved and blanks kept.
    pub(in crate::config) value: Vec<u8>,
    pub(in crate::config) value_offset: usize,
    /// Whether every byte of the value is one byte of the file.
    pub(in crate::config) verbatim: bool,
}

/// A piece of the file that is not an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Stray {
    pub(in crate::config) kind: StrayKind,
    /// The offset at which the piece begins, behind leading blanks.
    pub(in crate::config) offset: usize,
    pub(in crate::config) text: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum StrayKind {
    Comment,
    /// Text between tags.
    Text,
    /// Text behind the last tag of `head`.
    Behind,
}

/// A file that was parsed.
#[derive(Debug)]
pub(in crate::config) struct Document {
    pub(in crate::config) head: Element,
    pub(in crate::config) strays: Vec<Stray>,
}
