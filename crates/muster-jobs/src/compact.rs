//! Messages in a shorter form, for queues that take little: deflated, as text.

use std::io::{self, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

/// Bytes that a message may have in its long form: far more than any queue takes.
const MOST: u64 = 16 << 20;

/// The short form of a message, which begins with no brace.
pub fn compact(json: &str) -> String {
    let mut deflated = DeflateEncoder::new(Vec::new(), Compression::best());
    let written = deflated.write_all(json.as_bytes());
    let deflated = written.and_then(|()| deflated.finish());
    STANDARD_NO_PAD.encode(deflated.expect("writing to memory does not fail"))
}

/// The long form of a message in either form; `None` where it is in neither.
pub fn expand(body: &str) -> Option<String> {
    if body.starts_with('{') {
        return Some(body.to_owned());
    }
    let deflated = STANDARD_NO_PAD.decode(body).ok()?;
    let mut json = String::new();
    let read: io::Result<usize> = DeflateDecoder::new(&*deflated)
        .take(MOST)
        .read_to_string(&mut json);
    read.ok().map(|_| json)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn either_form_is_read(text in ".{0,400}") {
            let json = serde_json::json!({ "text": text }).to_string();
            prop_assert_eq!(expand(&json), Some(json.clone()));
            prop_assert_eq!(expand(&compact(&json)), Some(json));
            let _ = expand(&text);
        }
    }

    #[test]
    fn a_short_message_is_not_made_endless() {
        let bomb = compact(&"{".repeat(20 << 20));
        assert!(bomb.len() < 64 << 10);
        assert_eq!(expand(&bomb).unwrap().len() as u64, MOST);
    }
}
