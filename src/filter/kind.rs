//! What the filter's rules need to know of a path besides its name.

/// What kind of thing a path names, as far as the filter's rules need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Directory,
    /// Anything else, there or gone.
    File,
}
