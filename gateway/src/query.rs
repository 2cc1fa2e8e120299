//! Questions about a user or a product: the path names the query, whichever the processors answer.

use crate::{
    App,
    access::{Caller, Level},
    denied,
    error::Problem,
    forward,
    state::reading,
};
use axum::{
    Extension, Json,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::HashSet, sync::Arc};
use tillflow_engine::port::PortError;

/// How many products one request may ask for.
const MOST_PRODUCTS: usize = 200;

/// Queries that any task of the products answers: they have routes of their own.
pub(crate) const OF_THE_SHOP: &str = "pricing/";

/// How many of them are asked at a time.
const AT_A_TIME: usize = 8;

/// What is asked: a key of a group, and the path behind it.
pub(crate) struct Question<'a> {
    pub group: &'static str,
    pub key: &'a str,
    pub path: &'a str,
}

pub(crate) async fn user(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path((id, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.needs_user(&id)?;
    let question = Question { group: "customers", key: &id, path: path.trim_end_matches('/') };
    let answer = ask(&app, &question, &headers).await?.unwrap_or_else(|| nothing(question.path));
    if let Some(feature) = question.path.strip_prefix("entitlements/") {
        denied::look(&app, &id, feature, &answer);
    }
    Ok(found(answer))
}

/// The user's subscriptions; the path takes commands too, so it has a route of its own.
pub(crate) async fn subscription(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    user(state, caller, Path((id, "subscription".into())), headers).await
}

pub(crate) async fn product(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    product_path(state, caller, Path((id, String::new())), headers).await
}

pub(crate) async fn product_path(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path((id, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let path = path.trim_end_matches('/');
    // Another instance asks there what any task knows.
    if path.starts_with(OF_THE_SHOP) && !forward::is_forwarded(&headers) {
        return Err(Problem::not_found("that is not about one product; see /v1/pricing"));
    }
    // Reasons, demand, costs and rules are the shop's; shoppers see what stands on a product's page.
    caller.needs(if matches!(path, "price" | "related") { Level::Write } else { Level::Server })?;
    let question = Question { group: "products", key: &id, path };
    let value = ask(&app, &question, &headers).await?.ok_or_else(|| {
        let id = tillflow_schemas::shorten(&id);
        Problem::not_found(if path.is_empty() { format!("there is no product '{id}'") } else { format!("nothing is known of '{id}' here") })
    })?;
    Ok(found(value))
}

/// Which products are asked for.
#[derive(Deserialize)]
pub(crate) struct Ids {
    #[serde(default)]
    ids: String,
}

pub(crate) async fn products(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Query(Ids { ids }): Query<Ids>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.needs(Level::Server)?;
    let mut seen = HashSet::new();
    let ids: Vec<&str> = ids.split(',').map(str::trim).filter(|id| !id.is_empty() && seen.insert(*id)).collect();
    if ids.is_empty() || ids.len() > MOST_PRODUCTS {
        let message = format!("name 1 to {MOST_PRODUCTS} products: /v1/products?ids=p1,p2");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", message));
    }
    let ids: Vec<String> = ids.into_iter().map(str::to_owned).collect();
    let one = |key: String| {
        let (app, headers) = (app.clone(), headers.clone());
        async move {
            let answer = ask(&app, &Question { group: "products", key: &key, path: "" }, &headers).await?;
            Ok::<_, Problem>((key, answer))
        }
    };
    let answers: Vec<_> = stream::iter(ids.into_iter().map(one)).buffered(AT_A_TIME).try_collect().await?;
    let unknown: Vec<String> = answers.iter().filter(|(_, a)| a.is_none()).map(|(id, _)| id.clone()).collect();
    let products: Vec<Value> = answers.into_iter().filter_map(|(_, answer)| answer).collect();
    Ok(found(json!({ "products": products, "unknown": unknown })))
}

/// Answers a question from this instance's state, or has the instance answer that owns the key.
pub(crate) async fn ask(app: &Arc<App>, question: &Question<'_>, headers: &HeaderMap) -> Result<Option<Value>, Problem> {
    let known = app.shop.queries(question.group);
    let Some((name, rest)) = route(&known, question.path) else {
        let names = known.iter().filter(|n| !n.is_empty()).copied().collect::<Vec<_>>().join(", ");
        return Err(Problem::not_found(format!(
            "nothing answers '{}' of {}; there are: {names}",
            tillflow_schemas::shorten(question.path),
            question.group
        )));
    };
    match here(app, question.group, name, question.key, rest).await {
        Err(PortError::Elsewhere(address)) => forward::ask(app, &address, question, headers).await,
        answer => Ok(answer?),
    }
}

/// Asks this instance's state.
pub(crate) async fn here(
    app: &Arc<App>,
    group: &'static str,
    name: &'static str,
    key: &str,
    rest: &str,
) -> Result<Option<Value>, PortError> {
    let (key, rest) = (key.to_owned(), rest.to_owned());
    reading(app, move |app| app.shop.query(group, name, &key, &rest)).await
}

/// The longest query name that the path begins with, whole segments only, and what follows it.
fn route<'a>(known: &[&'static str], path: &'a str) -> Option<(&'static str, &'a str)> {
    let fits = |name: &&'static str| {
        let rest = path.strip_prefix(*name)?;
        if rest.is_empty() {
            return Some((*name, ""));
        }
        rest.strip_prefix('/').filter(|_| !name.is_empty()).map(|rest| (*name, rest))
    };
    known.iter().filter_map(fits).max_by_key(|(name, _)| name.len())
}

/// What is known of someone of whom nothing is known.
fn nothing(path: &str) -> Value {
    if path == "recommendations" { json!({ "items": [] }) } else { json!({}) }
}

fn found(value: Value) -> Response {
    ([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(value)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_wins_and_only_whole_segments_count() {
        let known = ["", "loyalty", "loyalty/ledger", "entitlements", "price"];
        for (path, expected) in [
            ("loyalty", Some(("loyalty", ""))),
            ("loyalty/ledger", Some(("loyalty/ledger", ""))),
            ("loyalty/ledger/2026", Some(("loyalty/ledger", "2026"))),
            ("loyalty/other", Some(("loyalty", "other"))),
            ("entitlements/exclusive_item", Some(("entitlements", "exclusive_item"))),
            ("loyaltyx", None),
            ("", Some(("", ""))),
            ("unknown", None),
        ] {
            assert_eq!(route(&known, path), expected, "{path}");
        }
        assert_eq!(route(&["price"], ""), None);
    }
}
