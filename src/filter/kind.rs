//! The one fact that the filter's rules need of a path besides its name.

/// The kind of thing that a path names, as far as the filter's rules need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Directory,
    /// Anything else, there or gone.
    File,
}
