//! The exact text of every key: objects that were written once must be found again.

use super::*;

const ID: &str = "0190b6a0-1234-7abc-8def-0123456789ab";

fn request() -> RequestId {
    ID.parse().unwrap()
}

#[test]
fn the_keys_of_a_request_are_pinned() {
    let id = request();
    let file = FileName::from_client("at home, anna.b.jpg");
    let both = |keys: ObjectKeys| (keys.input(id, &file), keys.output(id, &file));
    assert_eq!(
        both(ObjectKeys::Request),
        (
            format!("{ID}/at home, anna.b.jpg"),
            format!("{ID}/at home, anna.b.json")
        )
    );
    assert_eq!(
        both(ObjectKeys::PrefixHashed),
        (
            format!("ab-{ID}/at home, anna.b.jpg"),
            format!("ab-{ID}/at home, anna.b.json")
        )
    );
    assert_eq!(
        both(ObjectKeys::Filename),
        (
            "at home, anna.b.jpg".to_owned(),
            "at home, anna.b".to_owned()
        )
    );
    assert_eq!(request_prefixes(id), [ID.to_owned(), format!("ab-{ID}")]);
    for prefix in request_prefixes(id) {
        assert_eq!(owned_by(&prefix), Some(id));
    }
    assert_eq!(owned_by(&format!("ac-{ID}")), None);
    assert_eq!(owned_by("anna.jpg"), None);
    assert_eq!(
        job(id, "k-7", &file),
        format!("jobs/{ID}/k-7/at home, anna.b.jpg")
    );
    assert_eq!(job_prefix(id), format!("jobs/{ID}"));
    let after = after_job(id);
    assert_eq!(after, format!("jobs/{ID}0"));
    assert!(after > job(id, "k-7", &file));
}

/// S3 serves keys that begin alike from one place, which takes 3,500 writes a second.
#[test]
fn hashed_keys_of_one_moment_begin_with_every_hash() {
    let file = FileName::from_client("a.jpg");
    let mut begun = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..25_600 {
        let key = ObjectKeys::PrefixHashed.input(RequestId::new(), &file);
        *begun.entry(key[..2].to_owned()).or_default() += 1;
    }
    assert_eq!(begun.len(), 256);
    // 100 each are expected, with a standard deviation of 10.
    assert!(begun.values().all(|keys| (30..=170).contains(keys)));
}

#[test]
fn layouts_are_set_by_their_names() {
    for (layout, name) in [
        (ObjectKeys::Request, "\"request\""),
        (ObjectKeys::PrefixHashed, "\"prefix-hashed\""),
        (ObjectKeys::Filename, "\"filename\""),
    ] {
        assert_eq!(serde_json::to_string(&layout).unwrap(), name);
    }
}

#[test]
fn the_keys_of_the_state_are_pinned() {
    let uuid = ID.parse().unwrap();
    assert_eq!(kept_photograph(uuid), ID);
    assert_eq!(api_key("k-7"), "keys/k-7.json");
    assert_eq!(id_of_api_key("keys/k-7.json"), Some("k-7"));
    assert_eq!(id_of_api_key("status/fleet.json"), None);
    let entries = audit_entries("2025-07-01", uuid);
    assert_eq!(entries, format!("audit/2025-07-01/{ID}.jsonl"));
    assert_eq!(audit_day("2025-07-01"), "audit/2025-07-01");
    assert_eq!(day_of_audit_entries(&entries), Some("2025-07-01"));
    assert_eq!(day_of_audit_entries("status/fleet.json"), None);
    assert_eq!(not_embedded(ID), format!("status/model-change/{ID}"));
    assert_eq!(
        [
            LEARNED,
            FLEET_STATUS,
            CONTROLLER_LEASE,
            LAUNCHES,
            MODEL_CHANGE,
            NOT_EMBEDDED_PREFIX,
        ],
        [
            "status/learned.json",
            "status/fleet.json",
            "status/controller-lease.json",
            "status/launches.json",
            "status/model-change.json",
            "status/model-change",
        ]
    );
    assert_eq!(
        [
            INPUT_PREFIX,
            JOBS_PREFIX,
            OUTPUT_PREFIX,
            GALLERY_PREFIX,
            ENROLLED_PREFIX,
            KEYS_PREFIX,
            AUDIT_PREFIX,
            STATUS_PREFIX,
        ],
        [
            "input", "jobs", "output", "gallery", "enrolled", "keys", "audit", "status"
        ]
    );
}

#[test]
fn the_keys_of_a_gallery_are_pinned_and_read_back() {
    let keys = GalleryKeys::new(GALLERY_PREFIX);
    assert_eq!(keys.log_prefix(), "gallery");
    assert_eq!(keys.segments_prefix(), "gallery-segments");
    let name = |key: &str| key.rsplit('/').next().unwrap().to_owned();

    let change = keys.change(7);
    assert_eq!(change, "gallery/00000000000000000007.change.json");
    assert_eq!(LogEntry::parse(&name(&change)), Some((7, LogEntry::Change)));
    let snapshot = keys.snapshot(7, 2);
    assert_eq!(
        snapshot,
        "gallery/00000000000000000007.snapshot-00000000000000000002.json"
    );
    assert_eq!(
        LogEntry::parse(&name(&snapshot)),
        Some((7, LogEntry::Snapshot(2)))
    );
    let after = keys.after_version(7);
    assert_eq!(after, "gallery/00000000000000000007.z");
    assert!(after > change && after > snapshot && after < keys.change(8));
    let newer = "00000000000000000007.delta.json";
    assert_eq!(LogEntry::parse(newer), Some((7, LogEntry::Unknown)));
    assert_eq!(LogEntry::parse("00000000000000000007.change.json#1"), None);
    assert_eq!(LogEntry::parse("notes.json"), None);

    let manifest = keys.manifest(2);
    assert_eq!(
        manifest,
        "gallery-segments/00000000000000000002.manifest.json"
    );
    assert_eq!(manifest_number(&name(&manifest)), Some(2));
    let id = SegmentId::new(2, "0123456789abcdef");
    let segment = keys.segment(&id);
    assert_eq!(
        segment,
        "gallery-segments/00000000000000000002-0123456789abcdef.segment"
    );
    assert_eq!(id.file_name(), name(&segment));
    assert_eq!(SegmentId::parse(&name(&segment)), Some(id.clone()));
    assert_eq!(id.first_manifest(), Some(2));
    assert_eq!(manifest_number(&name(&segment)), None);
    assert_eq!(SegmentId::parse(&name(&manifest)), None);
    assert_eq!(
        serde_json::to_string(&id).unwrap(),
        "\"00000000000000000002-0123456789abcdef\""
    );
}
