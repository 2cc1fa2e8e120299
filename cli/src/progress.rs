//! Progress of long work: a bar on stderr, where that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of so many steps; without a length, a counter.
pub fn bar(length: Option<u64>, what: impl Into<std::borrow::Cow<'static, str>>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => (ProgressBar::new(length), "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg} {human_pos} {per_sec} {elapsed}"),
    };
    bar.set_message(what);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
