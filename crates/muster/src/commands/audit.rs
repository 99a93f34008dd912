//! `muster audit`: reads the log, directly from the state store.

use std::collections::HashMap;

use anyhow::Context;
use clap::Args;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use muster_gallery::{Gallery, GalleryStore, PersonId};
use muster_jobs::keys::GALLERY_PREFIX;

use muster_base::api_keys::KeyId;
use muster_base::audit::{Action, AuditLog, Entry, Who};
use muster_base::backend;
use muster_base::print_line;
use muster_base::settings::Settings;

use crate::flags::Overrides;

/// Arguments of `muster audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(flatten)]
    overrides: Overrides,
    /// From when on: a time ago (7d, 12h) or a moment (2026-01-31T00:00:00Z)
    #[arg(long, value_name = "WHEN", default_value = "7d", value_parser = moment)]
    since: Timestamp,
    /// Until when, in the same way [default: now]
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    until: Option<Timestamp>,
    /// Only what was done to this person: the id, or the name of somebody who is enrolled
    #[arg(long, value_name = "PERSON")]
    person: Option<String>,
    /// Only what the holder of this API key did
    #[arg(long, value_name = "ID")]
    key: Option<KeyId>,
    /// Only this
    #[arg(long = "action", value_name = "ACTION", value_delimiter = ',')]
    actions: Vec<Action>,
    /// Print JSON, an entry a line
    #[arg(long)]
    json: bool,
}

impl AuditArgs {
    /// Settings that were given as flags.
    pub fn overrides(&self) -> &Overrides {
        &self.overrides
    }
}

fn moment(text: &str) -> Result<Timestamp, String> {
    let moment = text.parse().or_else(|_| {
        let span: Span = text.parse()?;
        let now = Timestamp::now().to_zoned(TimeZone::UTC);
        now.checked_sub(span).map(|then| then.timestamp())
    });
    moment.map_err(|error: jiff::Error| {
        format!("write it as 7d, 12h or 2026-01-31T00:00:00Z ({error})")
    })
}

/// Prints what was asked for, oldest first.
///
/// # Errors
/// When the store can not be used.
pub async fn run(args: AuditArgs, settings: &Settings) -> anyhow::Result<()> {
    let state = backend::existing_state_store(&settings.storage, &settings.aws).await?;
    let mut gallery = Gallery::default();
    let store = GalleryStore::new(state.clone(), GALLERY_PREFIX);
    store.sync(&mut gallery).await.context("read the gallery")?;
    let people = args.person.as_deref().map(|person| {
        let mut people: Vec<PersonId> = gallery.named(person).map(|person| person.id).collect();
        people.extend(person.parse::<PersonId>().ok());
        anyhow::ensure!(
            !people.is_empty(),
            "nobody who is enrolled is called {person}: give the id of somebody who was deleted"
        );
        Ok(people)
    });
    let people = people.transpose()?;
    let ms = |at: Timestamp| u64::try_from(at.as_millisecond()).unwrap_or(0);
    let until = args.until.map_or(u64::MAX, ms);
    let entries = AuditLog::new(state).read(ms(args.since), until).await?;
    let of_key =
        |entry: &Entry, key: &KeyId| matches!(&entry.who, Who::Key { id, .. } if id == key);
    let wanted = entries.iter().filter(|entry| {
        people
            .as_ref()
            .is_none_or(|people| entry.people.iter().any(|id| people.contains(id)))
            && args.key.as_ref().is_none_or(|key| of_key(entry, key))
            && (args.actions.is_empty() || args.actions.contains(&entry.action))
    });
    let mut names = HashMap::new();
    for entry in wanted {
        if args.json {
            let line = serde_json::to_string(entry).context("write an entry")?;
            print_line!("{line}")?;
        } else {
            for id in &entry.people {
                if let Some(person) = gallery.person(*id) {
                    names.entry(*id).or_insert_with(|| person.name.clone());
                }
            }
            print_line!("{}", line(entry, &names))?;
        }
    }
    Ok(())
}

/// Most people that one line names.
const NAMED: usize = 5;

fn line(entry: &Entry, names: &HashMap<PersonId, String>) -> String {
    let at = i64::try_from(entry.at_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| "?".to_owned(), |at| format!("{at:.3}"));
    let mut line = format!("{at}  {}  {}", entry.who, entry.action);
    for id in entry.people.iter().take(NAMED) {
        match names.get(id) {
            Some(name) => line.push_str(&format!("  {name} ({id})")),
            None => line.push_str(&format!("  {id}")),
        }
    }
    if let Some(more) = entry.people.len().checked_sub(NAMED).filter(|n| *n > 0) {
        line.push_str(&format!("  and {more} more"));
    }
    if let Some(thing) = &entry.thing {
        line.push_str(&format!("  {thing}"));
    }
    if !entry.end.is_done() {
        line.push_str("  (nobody was told of its end: it may have been done)");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_who_what_and_whom() {
        let (anna, gone) = (PersonId::new(), PersonId::new());
        let mut entry = Entry {
            at_ms: 1_790_000_000_123,
            people: vec![anna, gone],
            ..Entry::now(Who::Account("ben".to_owned()), Action::Merged)
        };
        let names = HashMap::from([(anna, "Anna".to_owned())]);
        assert_eq!(
            line(&entry, &names),
            format!("2026-09-21T14:13:20.123Z  account ben  merged  Anna ({anna})  {gone}")
        );
        entry.people = vec![gone; NAMED + 2];
        assert!(line(&entry, &names).ends_with("and 2 more"));
    }

    #[test]
    fn a_time_ago_or_a_moment_is_understood() {
        let ago = |text| Timestamp::now().as_second() - moment(text).unwrap().as_second();
        assert!((ago("2d") - 2 * 86_400).abs() < 5);
        assert!((ago("90m") - 5400).abs() < 5);
        assert_eq!(
            moment("2026-01-31T00:00:00Z").unwrap().to_string(),
            "2026-01-31T00:00:00Z"
        );
        assert!(moment("yesterday").is_err());
    }
}
