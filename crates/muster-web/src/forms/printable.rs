//! Text of a client, fit to be quoted in an answer.

use muster_jobs::Printable;

/// Most characters of a client's text that an answer quotes.
const QUOTED: usize = 100;

/// The beginning of a client's text, on one line.
pub fn printable(text: &str) -> String {
    let end = text.char_indices().nth(QUOTED);
    let begin = end.map_or(text, |(end, _)| &text[..end]);
    Printable(begin).to_string()
}
