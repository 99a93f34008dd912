//! Reads the XML document by which S3 says why it refused.

/// Puts what S3 answers, an XML document, as its code and sentence, without object_store's account of
/// the call.
pub fn on_one_line(text: &str) -> String {
    const END: &str = "</Error>";
    const CALL: &str = "Error performing";
    let document = text.find("<?xml").or_else(|| text.find("<Error>"));
    let Some(start) = document else {
        return text.replace('\n', " ");
    };
    let (before, document) = text.split_at(start);
    let element = |name: &str| {
        let (_, after) = document.split_once(&format!("<{name}>"))?;
        Some(after.split_once(&format!("</{name}>"))?.0)
    };
    let (Some(code), Some((_, after))) = (element("Code"), document.split_once(END)) else {
        return text.replace('\n', " ");
    };
    let message = element("Message").unwrap_or_default();
    let before = before.split(CALL).next().unwrap_or_default();
    let before = before.strip_prefix("Generic S3 error: ").unwrap_or(before);
    format!("{before}{code}: {message}{after}").replace('\n', " ")
}
