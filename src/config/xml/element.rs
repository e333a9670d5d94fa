//! The small tree that a configuration file becomes: elements and attributes with their places, and what else stands in
//! the file. How a tag is read, and which names are known, is not said here.

/// An element from its start tag on.
#[derive(Debug)]
pub(in crate::config) struct Element {
    /// As written; compare by [`Element::is`].
    pub(in crate::config) name: Vec<u8>,
    /// Where its `<` stands.
    pub(in crate::config) offset: usize,
    pub(in crate::config) attributes: Vec<Attribute>,
    pub(in crate::config) children: Vec<Element>,
}

impl Element {
    pub(in crate::config) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The first child of that name: sersync ignores any other.
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
    /// Entities are resolved, blanks are kept.
    pub(in crate::config) value: Vec<u8>,
    pub(in crate::config) value_offset: usize,
    /// Whether every byte of the value is one byte of the file.
    pub(in crate::config) verbatim: bool,
}

/// What stands in the file and is no element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Stray {
    pub(in crate::config) kind: StrayKind,
    /// Where it begins, without blanks.
    pub(in crate::config) offset: usize,
    pub(in crate::config) text: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum StrayKind {
    Comment,
    /// Between tags.
    Text,
    /// Behind the last tag of `head`.
    Behind,
}

/// A file that could be read.
#[derive(Debug)]
pub(in crate::config) struct Document {
    pub(in crate::config) head: Element,
    pub(in crate::config) strays: Vec<Stray>,
}
