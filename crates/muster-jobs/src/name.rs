//! People's names, as they are compared.

use icu_normalizer::DecomposingNormalizer;
use icu_properties::CodePointSetData;
use icu_properties::props::DefaultIgnorableCodePoint;
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

#[cfg(test)]
mod tests {
    use super::*;

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
