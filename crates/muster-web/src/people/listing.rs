//! The enrolled people, a page at a time.

use axum::Json;
use axum::extract::{Extension, State};
use muster_api::people::{People, PersonView};
use muster_gallery::{Gallery, Person, PersonId};
use muster_jobs::{QualityLimits, name_key};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::api::affected::AffectedPeople;
use crate::api::extract::Query;
use crate::api::gallery;
use crate::api::openapi::problem_responses;
use crate::api::problem::ApiError;
use crate::people::views;
use muster_base::live_gallery::LiveGallery;

/// People on a page, unless asked otherwise.
const PAGE: usize = 100;
/// Most people on a page.
const MAX_PAGE: usize = 1000;

/// Which people are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Listing {
    /// Most people on the page, 1 to 1000; 100 where it is not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The last person of the page before, as its `next` named it.
    #[param(value_type = Option<uuid::Uuid>)]
    after: Option<PersonId>,
    /// Only people whose name contains this, as names are compared.
    name: Option<String>,
    /// Only the person with this external id.
    external_id: Option<String>,
}

problem_responses! {
    /// The query is not as expected.
    BadQuery: RequestInvalid;
}

/// List the people, a page at a time, in the order of enrolment
#[utoipa::path(
    get,
    path = "/v1/people",
    operation_id = "list_people",
    tag = "people",
    params(Listing),
    responses((status = 200, description = "A page.", body = People), BadQuery)
)]
pub async fn list(
    State(live): State<LiveGallery>,
    State(limits): State<QualityLimits>,
    Query(listing): Query<Listing>,
) -> Result<(Extension<AffectedPeople>, Json<People>), ApiError> {
    let limit = listing.limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(ApiError::bad_request(format!(
            "limit is {limit}: ask for 1 to {MAX_PAGE} people a page"
        )));
    }
    // In a copy, while others go on: a page has many records, and a search looks at everybody's.
    let copy = gallery::read(&live, Gallery::clone).await?;
    let page = gallery::look(&live, copy, move |copy| {
        page(copy, &listing, limit, &limits)
    })
    .await?;
    let shown = page.people.iter().map(|person| person.id.into()).collect();
    Ok((Extension(AffectedPeople(shown)), Json(page)))
}

fn page(gallery: &Gallery, listing: &Listing, limit: usize, limits: &QualityLimits) -> People {
    let wanted = listing.name.as_deref().map(name_key);
    let fits = |person: &Person| {
        let name = wanted.as_deref();
        name.is_none_or(|name| name_key(&person.name).contains(name))
            && (listing.external_id.is_none() || person.external_id == listing.external_id)
    };
    let mut people = Vec::new();
    let mut next = None;
    if let Some(external_id) = &listing.external_id {
        let person = gallery.external(external_id);
        people.extend(
            person
                .filter(|person| fits(person))
                .map(|p| views::person(&p, limits)),
        );
    } else {
        let mut after = listing.after;
        // One more than the page tells whether there is another.
        'pages: loop {
            let some = gallery.page(after, MAX_PAGE);
            let Some(last) = some.last() else {
                break;
            };
            after = Some(last.id);
            for person in some.iter().filter(|person| fits(person)) {
                if people.len() == limit {
                    next = people.last().map(|shown: &PersonView| shown.id);
                    break 'pages;
                }
                people.push(views::person(person, limits));
            }
        }
    }
    People {
        people,
        next,
        total: gallery.people_count(),
        version: gallery.version(),
    }
}
