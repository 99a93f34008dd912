//! Which operation of which service a request calls.

use hyper::{
    HeaderMap, Method, Uri,
    header::{AUTHORIZATION, HeaderName},
};

/// The header that names the operation in AWS's JSON protocols.
const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
/// The header that makes a write of an object a copy.
const COPY_SOURCE: HeaderName = HeaderName::from_static("x-amz-copy-source");

/// The services that faults can be injected into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// S3, addressed by path.
    S3,
    /// SQS in its JSON protocol.
    Sqs,
    /// EC2 in its query protocol.
    Ec2,
}

/// The service and operation that a request calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// `None` for a service that faults can not be injected into.
    pub(super) service: Option<Service>,
    pub(super) operation: String,
}

/// Returns the service that a request was signed for; requests that were not signed are S3's.
pub(super) fn service(headers: &HeaderMap) -> Option<Service> {
    let signed = headers.get(AUTHORIZATION).and_then(|it| it.to_str().ok());
    // Credential=<key>/<date>/<region>/<service>/aws4_request
    let scope = signed.and_then(|signed| signed.split(['/', ',']).nth(3));
    match scope {
        Some("s3") | None => Some(Service::S3),
        Some("sqs") => Some(Service::Sqs),
        Some("ec2") => Some(Service::Ec2),
        Some(_) => None,
    }
}

/// Returns the operation that a request to S3 calls, as S3's reference names it.
pub(super) fn s3_operation(method: &Method, uri: &Uri, headers: &HeaderMap) -> &'static str {
    let path = uri.path().trim_start_matches('/');
    let object = path.split_once('/').is_some_and(|(_, key)| !key.is_empty());
    let query = uri.query().unwrap_or_default();
    let has = |name: &str| {
        query
            .split('&')
            .any(|it| it.split('=').next() == Some(name))
    };
    match (method.as_str(), object) {
        ("GET", true) => "GetObject",
        ("HEAD", true) => "HeadObject",
        ("PUT", true) if has("partNumber") => "UploadPart",
        ("PUT", true) if headers.contains_key(COPY_SOURCE) => "CopyObject",
        ("PUT", true) => "PutObject",
        ("DELETE", true) if has("uploadId") => "AbortMultipartUpload",
        ("DELETE", true) => "DeleteObject",
        ("POST", true) if has("uploads") => "CreateMultipartUpload",
        ("POST", true) => "CompleteMultipartUpload",
        ("GET", false) if path.is_empty() => "ListBuckets",
        ("GET", false) if has("location") => "GetBucketLocation",
        ("GET", false) => "ListObjectsV2",
        ("HEAD", false) => "HeadBucket",
        ("PUT", false) => "CreateBucket",
        ("DELETE", false) => "DeleteBucket",
        ("POST", false) if has("delete") => "DeleteObjects",
        _ => "Unknown",
    }
}

/// Returns the operation that a request in a JSON or query protocol calls.
pub(super) fn named_operation(headers: &HeaderMap, body: &[u8]) -> String {
    let target = headers.get(TARGET).and_then(|it| it.to_str().ok());
    let target = target.and_then(|target| target.rsplit('.').next());
    let action = || {
        body.split(|&byte| byte == b'&')
            .find_map(|pair| pair.strip_prefix(b"Action="))
            .map(|action| String::from_utf8_lossy(action).into_owned())
    };
    target
        .map(str::to_owned)
        .or_else(action)
        .unwrap_or_else(|| "Unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(method: Method, uri: &str) -> &'static str {
        s3_operation(&method, &uri.parse().expect("a URI"), &HeaderMap::new())
    }

    #[test]
    fn s3_is_told_by_method_and_path() {
        assert_eq!(s3(Method::PUT, "/bucket/a/b.jpg"), "PutObject");
        assert_eq!(s3(Method::PUT, "/bucket/"), "CreateBucket");
        assert_eq!(
            s3(Method::GET, "/bucket?list-type=2&prefix=a"),
            "ListObjectsV2"
        );
        assert_eq!(s3(Method::POST, "/bucket?delete="), "DeleteObjects");
        assert_eq!(
            s3(Method::PUT, "/b/key?partNumber=1&uploadId=x"),
            "UploadPart"
        );
    }

    #[test]
    fn the_signature_names_the_service() {
        let signed = |scope: &str| {
            let mut headers = HeaderMap::new();
            let value = format!(
                "AWS4-HMAC-SHA256 Credential=test/20260101/eu-central-1/{scope}/aws4_request, \
                 SignedHeaders=host, Signature=00"
            );
            headers.insert(AUTHORIZATION, value.parse().expect("a header"));
            service(&headers)
        };
        assert_eq!(signed("sqs"), Some(Service::Sqs));
        assert_eq!(signed("ec2"), Some(Service::Ec2));
        assert_eq!(signed("sts"), None);
        assert_eq!(service(&HeaderMap::new()), Some(Service::S3));
    }
}
