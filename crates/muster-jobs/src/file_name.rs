//! File names as clients send them: data to be echoed, never a path.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::printable::Printable;

/// Longest kept name once percent-encoded, in bytes: file systems take 255 for one component, and
/// the object store adds a suffix of its own while it writes.
const MAX_ENCODED_BYTES: usize = 200;
/// Longest extension kept when a name is cut, in bytes.
const MAX_EXTENSION_BYTES: usize = 12;

/// A client's file name, made safe to echo on one line and to use as one component of a key.
///
/// Folders are cut off (`../../etc/passwd` is `passwd`), unprintable characters become `_`, and an
/// over-long name is shortened before its extension. The result is never empty, `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(from = "String", into = "String")]
pub struct FileName(String);

impl FileName {
    /// Makes a safe name of what a client sent.
    pub fn from_client(raw: &str) -> Self {
        let last = raw.rsplit(['/', '\\']).next().unwrap_or_default();
        let clean = Printable(last).replaced_by('_');
        // What no queue carries as it is.
        let clean = clean.replace(['\u{fffe}', '\u{ffff}'], "_");
        let short = shorten(clean.trim());
        // Where it was cut may be a space.
        match short.trim_end() {
            "" | "." | ".." => Self("photo".to_owned()),
            name => Self(name.to_owned()),
        }
    }

    /// The whole name, with its extension.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without its last extension; a name that is only an extension is its own stem.
    pub fn stem(&self) -> &str {
        match self.0.rsplit_once('.') {
            Some((stem, _)) if !stem.is_empty() => stem,
            _ => &self.0,
        }
    }
}

impl From<String> for FileName {
    fn from(raw: String) -> Self {
        Self::from_client(&raw)
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.0
    }
}

/// Bytes that `c` takes in an object key, where everything but plain ASCII is percent-encoded.
fn encoded_len(c: char) -> usize {
    if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ' ') {
        1
    } else {
        3 * c.len_utf8()
    }
}

fn shorten(name: &str) -> String {
    if name.chars().map(encoded_len).sum::<usize>() <= MAX_ENCODED_BYTES {
        return name.to_owned();
    }
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension))
            if !stem.is_empty()
                && extension.chars().map(encoded_len).sum::<usize>() <= MAX_EXTENSION_BYTES =>
        {
            (stem, Some(extension))
        }
        _ => (name, None),
    };
    let mut room = MAX_ENCODED_BYTES - extension.map_or(0, |_| MAX_EXTENSION_BYTES + 1);
    let mut kept: String = stem
        .chars()
        .take_while(|&c| {
            let fits = encoded_len(c) <= room;
            room = room.saturating_sub(encoded_len(c));
            fits
        })
        .collect();
    if let Some(extension) = extension {
        kept.push('.');
        kept.push_str(extension);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn folders_and_control_characters_are_not_kept() {
        for (raw, name, stem) in [
            ("anna.jpg", "anna.jpg", "anna"),
            ("../../etc/passwd", "passwd", "passwd"),
            ("C:\\photos\\anna.b.jpg", "anna.b.jpg", "anna.b"),
            (
                "a\r\nSet-Cookie: x.jpg",
                "a__Set-Cookie: x.jpg",
                "a__Set-Cookie: x",
            ),
            ("..", "photo", "photo"),
            ("", "photo", "photo"),
            ("photos/", "photo", "photo"),
            (".jpg", ".jpg", ".jpg"),
            ("żółw.png", "żółw.png", "żółw"),
            ("a\u{202e}gpj.exe", "a_gpj.exe", "a_gpj"),
            ("a\u{ad}\u{9b}2J.jpg", "a__2J.jpg", "a__2J"),
        ] {
            let safe = FileName::from_client(raw);
            assert_eq!((safe.as_str(), safe.stem()), (name, stem), "{raw:?}");
        }
    }

    #[test]
    fn a_long_name_is_cut_before_its_extension() {
        let name = FileName::from_client(&format!("{}.jpeg", "x".repeat(4000)));
        assert!(name.as_str().len() <= MAX_ENCODED_BYTES);
        assert!(name.as_str().ends_with("x.jpeg"));
    }

    #[test]
    fn a_long_name_is_not_cut_into_another() {
        for (raw, name) in [
            (format!("anna{}x", " ".repeat(300)), "anna"),
            (format!("..{}x", " ".repeat(300)), "photo"),
        ] {
            assert_eq!(FileName::from_client(&raw).as_str(), name);
        }
    }

    proptest! {
        #[test]
        fn any_name_becomes_one_safe_component(raw in ".{0,400}|(\\.\\./){1,9}.{0,9}") {
            let name = FileName::from_client(&raw);
            prop_assert!(!name.as_str().is_empty());
            prop_assert!(!name.as_str().contains(['/', '\\', '\r', '\n', '\0']));
            prop_assert!(name.as_str() != "." && name.as_str() != "..");
            prop_assert!(name.as_str().chars().map(encoded_len).sum::<usize>() <= MAX_ENCODED_BYTES);
            prop_assert_eq!(FileName::from_client(name.as_str()), name.clone());
            prop_assert!(!name.stem().is_empty());
        }
    }
}
