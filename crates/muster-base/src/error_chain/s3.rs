//! Reads the XML document by which S3 says why it refused: object_store hands it on as text alone.

/// S3's code and sentence, where a text has its document, with what stands before and after it.
pub struct S3Refusal<'a> {
    /// What stands before the document.
    pub before: &'a str,
    /// S3's code, as `NoSuchBucket`.
    pub code: &'a str,
    /// S3's sentence.
    pub message: &'a str,
    /// What stands after the document.
    pub after: &'a str,
}

impl<'a> S3Refusal<'a> {
    /// Finds the document in what an error says.
    pub fn find(text: &'a str) -> Option<Self> {
        const END: &str = "</Error>";
        let start = text.find("<?xml").or_else(|| text.find("<Error>"))?;
        let (before, document) = text.split_at(start);
        let element = |name: &str| {
            let (_, after) = document.split_once(&format!("<{name}>"))?;
            Some(after.split_once(&format!("</{name}>"))?.0)
        };
        let (_, after) = document.split_once(END)?;
        Some(Self {
            before,
            code: element("Code")?,
            message: element("Message").unwrap_or_default(),
            after,
        })
    }
}

/// Puts what S3 answers, an XML document, as its code and sentence, without object_store's account of
/// the call.
pub fn on_one_line(text: &str) -> String {
    const CALL: &str = "Error performing";
    let Some(refusal) = S3Refusal::find(text) else {
        return text.replace('\n', " ");
    };
    let before = refusal.before.split(CALL).next().unwrap_or_default();
    let before = before.strip_prefix("Generic S3 error: ").unwrap_or(before);
    let S3Refusal {
        code,
        message,
        after,
        ..
    } = refusal;
    format!("{before}{code}: {message}{after}").replace('\n', " ")
}
