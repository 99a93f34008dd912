//! Text of strangers, made safe to show: what acts on a terminal or hides in a line is made visible.

use std::fmt;

use icu_properties::CodePointMapData;
use icu_properties::props::{GeneralCategory, GeneralCategoryGroup};

/// Text with every unprintable character as JSON writes it, `\u001b`, on one line.
///
/// In JSON, where such characters stand in strings only, the document stays the same.
#[derive(Clone, Copy, Debug)]
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = 0;
        for (at, c) in unprintable(self.0) {
            f.write_str(&self.0[shown..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(f, "\\u{unit:04x}")?;
            }
            shown = at + c.len_utf8();
        }
        f.write_str(&self.0[shown..])
    }
}

impl Printable<'_> {
    /// The text with something else in each unprintable character's place.
    pub(crate) fn replaced_by(self, by: char) -> String {
        let kept = |c| if is_unprintable(c) { by } else { c };
        self.0.chars().map(kept).collect()
    }
}

/// The unprintable characters of a text, and where they stand.
///
/// A joiner between letters (U+200C, U+200D) is part of how names in Persian, Sinhala and other
/// scripts are written, and is text there.
pub fn unprintable(text: &str) -> impl Iterator<Item = (usize, char)> {
    let letter = |c: char| {
        let category = category(c);
        GeneralCategoryGroup::Letter.contains(category)
            || GeneralCategoryGroup::Mark.contains(category)
    };
    let joins = move |at: usize, c: char| {
        matches!(c, '\u{200c}' | '\u{200d}')
            && text[..at].chars().next_back().is_some_and(letter)
            && text[at + c.len_utf8()..].chars().next().is_some_and(letter)
    };
    text.char_indices()
        .filter(move |&(at, c)| is_unprintable(c) && !joins(at, c))
}

/// Control and format characters (those that reorder a line among them), line and paragraph
/// separators.
fn is_unprintable(c: char) -> bool {
    !matches!(c, ' '..='~')
        && matches!(
            category(c),
            GeneralCategory::Control
                | GeneralCategory::Format
                | GeneralCategory::LineSeparator
                | GeneralCategory::ParagraphSeparator
        )
}

fn category(c: char) -> GeneralCategory {
    CodePointMapData::<GeneralCategory>::new().get(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_made_visible() {
        for (raw, shown) in [
            ("Zoë żółw 李 👩", "Zoë żółw 李 👩"),
            ("\x1b[31mred", r"\u001b[31mred"),
            ("\x1b]0;title\x07", r"\u001b]0;title\u0007"),
            ("\u{9b}2J", r"\u009b2J"),
            ("a\nb\tc", r"a\u000ab\u0009c"),
            ("a\u{202e}gpj.exe", r"a\u202egpj.exe"),
            (
                "\u{2066}\u{200b}\u{feff}\u{2028}",
                r"\u2066\u200b\ufeff\u2028",
            ),
            ("\u{e0041}", r"\udb40\udc41"),
            ("می\u{200c}خواهم", "می\u{200c}خواهم"),
            ("ශ්\u{200d}රී", "ශ්\u{200d}රී"),
            ("Anna\u{200d}", r"Anna\u200d"),
        ] {
            assert_eq!(Printable(raw).to_string(), shown, "{raw:?}");
        }
    }

    proptest! {
        #[test]
        fn a_json_document_stays_the_same(text in "[\\PC\\p{C}\\s]{0,40}") {
            let json = serde_json::to_string(&text).unwrap();
            let shown = Printable(&json).to_string();
            prop_assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
            prop_assert!(unprintable(&shown).next().is_none());
        }
    }
}
