//! Turns a panic inside sled into a value. Opening a store that crashed or was damaged may panic.
//!
//! The panic's message goes to the log instead of standard error. For that purpose one panic hook is installed for the
//! whole process, once. The hook passes the panics of all threads that are not inside [`guarded`] to the hook that was
//! there before, so no other thread notices.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use super::slack::with_slack;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`. `Err` holds in words what `work` panicked with. Threads that sled starts meanwhile sleep while there is
/// nothing to do.
///
/// The caller drops whatever `work` touched, since it may be half changed.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    install_hook();
    let before = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(|| if before { work() } else { with_slack(work) }));
    GUARDED.set(before);
    result.map_err(|payload| in_words(payload.as_ref()))
}

fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |panic| {
            // A thread whose locals are gone is not inside `guarded`.
            if GUARDED.try_with(Cell::get).unwrap_or(false) {
                log::warn!("the store's engine gave up: {panic}");
            } else {
                previous(panic);
            }
        }));
    });
}

fn in_words(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    // One line, of a length that fits a log and a status page.
    let line: String = text.unwrap_or("panic").lines().next().unwrap_or_default().chars().take(200).collect();
    format!("the engine gave up: {line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_words_and_leaves_the_thread_as_it_was() {
        assert_eq!(guarded(|| 7), Ok(7));
        assert_eq!(guarded(|| panic!("at {}", 3)).map(|()| 0), Err("the engine gave up: at 3".to_owned()));
        assert!(!GUARDED.get());
    }
}
