//! What a form's field says that its file is called, in each of the ways that clients write it.

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use encoding_rs::Encoding;
use percent_encoding::percent_decode_str;

/// The file's name: of `filename*` (RFC 5987, .NET and others), or of `filename`, plain or in encoded
/// words (RFC 2047, .NET and others).
pub fn file_name(headers: &HeaderMap) -> Option<String> {
    let header = headers.get(header::CONTENT_DISPOSITION)?;
    let header = std::str::from_utf8(header.as_bytes()).ok()?;
    let parameters = parameters(header);
    let named = |wanted: &str| {
        let mut all = parameters.iter();
        let found = all.find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.as_str())
    };
    let extended = named("filename*").and_then(extended);
    extended.or_else(|| named("filename").map(without_encoded_words))
}

/// The parameters of a header's value: names, and values without their quotation marks.
fn parameters(header: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    let mut rest = header;
    while let Some((_, after)) = rest.split_once(';') {
        let Some((name, value)) = after.split_once('=') else {
            break;
        };
        let value = value.trim_start();
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => quoted_text(quoted),
            None => {
                let end = value.find(';').unwrap_or(value.len());
                (value[..end].trim_end().to_owned(), &value[end..])
            }
        };
        found.push((name.trim(), value));
        rest = after;
    }
    found
}

/// A quoted text up to its end, and what follows. A backslash hides a quotation mark only: some
/// clients send a whole path.
fn quoted_text(quoted: &str) -> (String, &str) {
    let mut text = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (text, &quoted[at + 1..]),
            '\\' if chars.next_if(|(_, next)| *next == '"').is_some() => text.push('"'),
            c => text.push(c),
        }
    }
    (text, "")
}

/// The text of `UTF-8''na%C3%AFve.jpg`.
fn extended(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_language, text) = rest.split_once('\'')?;
    decoded(charset, &percent_decode_str(text).collect::<Vec<_>>())
}

/// A text whose encoded words, `=?utf-8?B?…?=`, are decoded. What is none stays as it is.
fn without_encoded_words(text: &str) -> String {
    let mut clear = String::new();
    let mut rest = text;
    let mut after_word = false;
    while let Some(begin) = rest.find("=?") {
        let between = &rest[..begin];
        // Blanks between two words only part them.
        let blank = after_word && between.trim().is_empty();
        match encoded_word(&rest[begin + 2..]) {
            Some((word, after)) => {
                clear.push_str(if blank { "" } else { between });
                clear.push_str(&word);
                rest = after;
                after_word = true;
            }
            None => {
                clear.push_str(&rest[..begin + 2]);
                rest = &rest[begin + 2..];
                after_word = false;
            }
        }
    }
    clear + rest
}

/// The word that begins here, behind its `=?`, and what follows it.
fn encoded_word(text: &str) -> Option<(String, &str)> {
    let (charset, rest) = text.split_once('?')?;
    let (encoding, rest) = rest.split_once('?')?;
    let (word, after) = rest.split_once("?=")?;
    let bytes = match encoding {
        "B" | "b" => STANDARD.decode(word).ok()?,
        "Q" | "q" => {
            let percent = word.replace('%', "%25").replace('_', " ").replace('=', "%");
            percent_decode_str(&percent).collect()
        }
        _ => return None,
    };
    // RFC 2231 lets a language follow the charset.
    let charset = charset.split('*').next().unwrap_or_default();
    Some((decoded(charset, &bytes)?, after))
}

fn decoded(charset: &str, bytes: &[u8]) -> Option<String> {
    let encoding = Encoding::for_label(charset.as_bytes())?;
    encoding
        .decode_without_bom_handling_and_without_replacement(bytes)
        .map(|text| text.into_owned())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn names_are_read_in_every_way_that_clients_write_them() {
        for (written, name) in [
            (
                r#"form-data; name="image"; filename="a b.jpg""#,
                Some("a b.jpg"),
            ),
            (r#"form-data; name=image; filename=a.jpg"#, Some("a.jpg")),
            (
                r#"form-data; filename="żółw.png"; name="x""#,
                Some("żółw.png"),
            ),
            (r#"form-data; filename="a\"b;c.jpg""#, Some("a\"b;c.jpg")),
            (
                r#"form-data; filename="C:\photos\a.jpg""#,
                Some(r"C:\photos\a.jpg"),
            ),
            // .NET's HttpClient sends both.
            (
                "form-data; name=image; filename=\"=?utf-8?B?xbzDs8WCdy5qcGc=?=\"; \
                 filename*=utf-8''%C5%BC%C3%B3%C5%82w.jpg",
                Some("żółw.jpg"),
            ),
            (
                r#"form-data; filename="=?utf-8?B?xbzDs8WCdy5qcGc=?=""#,
                Some("żółw.jpg"),
            ),
            (
                r#"form-data; FileName*=UTF-8'en'na%C3%AFve.jpg"#,
                Some("naïve.jpg"),
            ),
            (
                r#"form-data; filename*=iso-8859-1''na%EFve.jpg; filename=x"#,
                Some("naïve.jpg"),
            ),
            (
                r#"form-data; filename="=?iso-8859-1?Q?na=EFve_50%?= =?utf-8*en?q?=20=2ejpg?=""#,
                Some("naïve 50% .jpg"),
            ),
            // What is not decoded is taken as it is.
            (
                r#"form-data; filename="=?utf-8?B?%%?=.jpg""#,
                Some("=?utf-8?B?%%?=.jpg"),
            ),
            (
                r#"form-data; filename="=?what?B?YQ==?=""#,
                Some("=?what?B?YQ==?="),
            ),
            (
                r#"form-data; filename*=utf-8''%FF; filename="a.jpg""#,
                Some("a.jpg"),
            ),
            (r#"form-data; filename*=a.jpg"#, None),
            (r#"form-data; filename="a"#, Some("a")),
            (r#"form-data; name="filename=x""#, None),
            ("form-data", None),
        ] {
            let header = HeaderValue::from_bytes(written.as_bytes()).unwrap();
            let headers = HeaderMap::from_iter([(header::CONTENT_DISPOSITION, header)]);
            assert_eq!(file_name(&headers).as_deref(), name, "{written}");
        }
    }
}
