//! Text of a client, fit to be quoted in an answer.

/// The beginning of a client's text, without control characters.
pub fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}
