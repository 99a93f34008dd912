//! People's names, as they are compared.

use icu_normalizer::DecomposingNormalizer;
use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory};
use icu_properties::{CodePointMapData, CodePointSetData};
use unicase::UniCase;

/// What a face is called that is nobody's; no person can have it for a name.
pub const UNKNOWN: &str = "unknown";

/// What two names have in common that are one to whoever reads them.
///
/// They may differ in case, in how an accent is encoded, in the kind and number of blanks, and in
/// characters that are not seen (Unicode's canonical caseless match, D145). José and Jose stay two.
/// It is empty where nothing of a name is seen.
pub fn name_key(name: &str) -> String {
    let decomposed = DecomposingNormalizer::new_nfd();
    let ignorable = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    let seen: String = name.chars().filter(|c| !ignorable.contains(*c)).collect();
    let folded = UniCase::unicode(decomposed.normalize(&seen)).to_folded_case();
    let words: Vec<&str> = folded.split_whitespace().collect();
    decomposed.normalize(&words.join(" ")).into_owned()
}

/// Whether a name reads like [`UNKNOWN`]: also in full-width or other letters that stand for the same ones
/// (Unicode's compatibility caseless match, D146), and with marks of format among them.
pub fn reads_unknown(name: &str) -> bool {
    let compatible = DecomposingNormalizer::new_nfkd();
    let category = CodePointMapData::<GeneralCategory>::new();
    let seen = |c: &char| category.get(*c) != GeneralCategory::Format;
    let seen: String = name.chars().filter(seen).collect();
    name_key(&compatible.normalize(&seen)) == UNKNOWN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_is_called_has_no_double() {
        for name in [
            "unknown",
            " UNKNOWN ",
            "Ｕｎｋｎｏｗｎ",
            "ｕnknown",
            "un\u{200b}known",
            "un\u{ad}k\u{2060}nown",
            "\u{feff}unknown",
            "\u{1d566}\u{1d55f}\u{1d55c}\u{1d55f}\u{1d560}\u{1d568}\u{1d55f}",
            "un\u{180e}known",
            "ⓤⓝⓚⓝⓞⓦⓝ",
        ] {
            assert!(reads_unknown(name), "{name:?}");
        }
        for name in ["Unknown Soldier", "un known", "Anna", ""] {
            assert!(!reads_unknown(name), "{name:?}");
        }
    }

    #[test]
    fn names_that_read_the_same_are_one_and_others_are_not() {
        for (one, other) in [
            ("José", "Jose\u{301}"),
            ("JOSÉ", "jose\u{301}"),
            ("Anna  Maria", " anna\u{a0}\u{3000}maria "),
            ("Groß", "GROSS"),
            ("Σίσυφος", "ΣΊΣΥΦΟΣ"),
            ("Anna", "An\u{ad}na\u{200b}"),
            ("葛\u{e0100}城", "葛城"),
        ] {
            assert_eq!(name_key(one), name_key(other), "{one:?}");
        }
        for (one, other) in [
            ("José", "Jose"),
            ("Annamaria", "Anna Maria"),
            ("Ann", "Anne"),
        ] {
            assert_ne!(name_key(one), name_key(other), "{one:?}");
        }
        assert_eq!(name_key("\u{3164} \u{200b}"), "");
    }
}
