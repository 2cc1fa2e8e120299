//! Prices on request: decisions now, quotes for carts, and the rules with who wrote them when.

use crate::{
    App,
    access::{Caller, Level},
    error::Problem,
    forward, ingest, query,
};
use axum::{
    Extension, Json,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tillflow_engine::port::{Append, PortError};
use tillflow_processors::pricing::{Layer, QUOTE_HOLDS, QUOTE_LIMIT, Quote, QuoteError, QuotedPrice};
use tillflow_schemas::{Event, Money, PricingRule, ProductCommand, ProductId, Timestamp};
use tokio::time::Instant;

/// Products of one run that may be named.
const MOST_NAMED: usize = 1_000;
/// How many products are asked about at a time.
const AT_A_TIME: usize = 8;
/// How long a run waits for its decisions unless told: they are made once the grace for late events is over.
const RUN_WAITS_S: u64 = 20;
/// The longest that a caller may have it wait.
const LONGEST_WAIT_S: u64 = 120;
/// How long a new rule may take until it counts here.
const RULE_COUNTS_WITHIN: Duration = Duration::from_secs(5);
/// How often the state is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Any key: what every task knows is asked of the first one that runs here. So many fall into every partition.
const ANY_KEY: u32 = 256;

fn bad(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_request", message)
}

/// Asks what every task of the products knows: whichever runs here, else one elsewhere.
async fn anywhere(app: &Arc<App>, name: &'static str, rest: &str) -> Result<Option<Value>, Problem> {
    let mut elsewhere = None;
    for key in (0..ANY_KEY).map(|key| key.to_string()) {
        match query::here(app, "products", name, &key, rest).await {
            Err(PortError::Elsewhere(address)) => elsewhere = Some((key, address)),
            Err(PortError::Restoring | PortError::Unreachable(_)) => {}
            answer => return Ok(answer?),
        }
    }
    let (key, address) = elsewhere.ok_or(PortError::Restoring)?;
    let path = format!("{name}/{rest}");
    forward::ask(app, &address, &query::Question { group: "products", key: &key, path: &path }, &HeaderMap::new()).await
}

/// Which products to decide about, and how long to wait for it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    /// All where absent.
    product_ids: Option<Vec<ProductId>>,
    wait_s: Option<u64>,
}

/// Decides now, and says how many prices changed.
pub(crate) async fn run(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, request: Request) -> Result<Response, Problem> {
    caller.needs(Level::Server)?;
    let Run { product_ids, wait_s } = ingest::json(&app, request).await?;
    let mut products = match product_ids {
        Some(ids) if ids.is_empty() || ids.len() > MOST_NAMED => {
            return Err(bad(format!("product_ids: name 1 to {MOST_NAMED}, or none for all")));
        }
        Some(ids) => ids,
        None => all_products(&app).await?,
    };
    let mut seen = HashSet::new();
    products.retain(|id| seen.insert(id.clone()));
    let (now, run_id) = ((app.wall)(), uuid::Uuid::new_v4().to_string());
    let commands = products.iter().map(|id| ask_for_decision(id, &run_id, now)).collect::<Result<Vec<_>, _>>()?;
    for commands in commands.chunks(MOST_NAMED) {
        ingest::append(&app, commands.to_vec()).await?;
    }
    let wait = Duration::from_secs(wait_s.unwrap_or(RUN_WAITS_S).min(LONGEST_WAIT_S));
    let decided = decisions(&app, products.clone(), now, Instant::now() + wait).await;
    let changed: Vec<&Value> = decided.iter().filter(|d| d.get("changed").is_some_and(|c| c == true)).collect();
    let status = if decided.len() == products.len() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let answer = json!({
        "run_id": run_id, "at": now, "products": products.len(), "decided": decided.len(), "changed": changed.len(),
        "changes": changed.iter().take(MOST_NAMED).collect::<Vec<_>>(),
    });
    Ok((status, Json(answer)).into_response())
}

/// The ids of all products that are known, a page at a time.
async fn all_products(app: &Arc<App>) -> Result<Vec<ProductId>, Problem> {
    let mut ids: Vec<ProductId> = Vec::new();
    loop {
        let after = ids.last().map(|id| id.as_str().to_owned()).unwrap_or_default();
        let Some(page) = anywhere(app, "pricing/products", &after).await? else { return Ok(ids) };
        let page: Vec<ProductId> = page.get("product_ids").cloned().and_then(|p| serde_json::from_value(p).ok()).unwrap_or_default();
        if page.is_empty() {
            return Ok(ids);
        }
        ids.extend(page);
    }
}

fn ask_for_decision(product: &ProductId, run_id: &str, at: Timestamp) -> Result<Append, Problem> {
    let command = ProductCommand {
        product_id: product.clone(),
        request_id: format!("run:{run_id}:{product}"),
        at,
        action: "price_now".into(),
        user_id: None,
        data: Map::new(),
    };
    Ok(ingest::encode(&Event::ProductCommand(command))?)
}

/// The decisions that were made since `at`, as far as they are made by `until`.
async fn decisions(app: &Arc<App>, mut products: Vec<ProductId>, at: Timestamp, until: Instant) -> Vec<Value> {
    let mut decided = Vec::new();
    loop {
        let asked = stream::iter(std::mem::take(&mut products)).map(|id| async move {
            let decision = decision(app, &id, at).await;
            (id, decision)
        });
        for (id, decision) in asked.buffer_unordered(AT_A_TIME).collect::<Vec<_>>().await {
            match decision {
                Some(decision) => decided.push(decision),
                None => products.push(id),
            }
        }
        if products.is_empty() || Instant::now() >= until || app.stop.is_cancelled() {
            return decided;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn decision(app: &Arc<App>, product: &ProductId, since: Timestamp) -> Option<Value> {
    let question = query::Question { group: "products", key: product.as_str(), path: "price/explain" };
    let explained = query::ask(app, &question, &HeaderMap::new()).await.ok()??;
    let last = explained.get("last_decision")?;
    let made = Timestamp::parse(last.get("decided_at")?.as_str()?).ok()?;
    (made >= since).then(|| {
        let field = |name: &str| last.get(name).cloned().unwrap_or_default();
        json!({ "product_id": product, "price": field("price"), "changed": field("changed"), "reason": field("reason"), "held_by": field("held_by") })
    })
}

/// Prices of which products to promise for which cart.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuoteRequest {
    cart_id: Option<String>,
    product_ids: Vec<ProductId>,
}

/// Promises the prices of now, signed.
pub(crate) async fn quote(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    caller.needs(Level::Write)?;
    let headers = request.headers().clone();
    let asked: QuoteRequest = ingest::json(&app, request).await?;
    if asked.product_ids.is_empty() || asked.product_ids.len() > QUOTE_LIMIT {
        return Err(bad(format!("product_ids: name 1 to {QUOTE_LIMIT}")));
    }
    let prices = prices(&app, asked.product_ids, &headers).await?;
    if let Some((id, _)) = prices.iter().find(|(_, price)| price.is_none()) {
        return Err(Problem::not_found(format!("product '{}' has no price", tillflow_schemas::shorten(id.as_str()))));
    }
    let prices: Vec<QuotedPrice> = prices.into_iter().filter_map(|(_, price)| price).collect();
    let quote = Quote { cart_id: asked.cart_id, expires_at: (app.wall)() + QUOTE_HOLDS, prices };
    let token = quote.sign(&app.quote_secret).map_err(|e| bad(e.to_string()))?;
    Ok(Json(json!({ "quote": token, "cart_id": quote.cart_id, "expires_at": quote.expires_at, "prices": quote.prices })).into_response())
}

/// A quote to be checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuoteCheck {
    quote: String,
}

/// Says whether a quote still holds, and what to charge: the lower of quoted and current.
pub(crate) async fn check(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    caller.needs(Level::Write)?;
    let headers = request.headers().clone();
    let QuoteCheck { quote } = ingest::json(&app, request).await?;
    let quote = match Quote::read(&quote, &app.quote_secret, (app.wall)()) {
        Ok(quote) => quote,
        Err(e @ (QuoteError::Forged | QuoteError::Expired(_))) => {
            return Ok(Json(json!({ "honoured": false, "reason": e.to_string() })).into_response());
        }
        Err(e) => return Err(bad(e.to_string())),
    };
    let now = prices(&app, quote.prices.iter().map(|p| p.product_id.clone()).collect(), &headers).await?;
    let prices: Vec<Value> = quote
        .prices
        .iter()
        .zip(now)
        .map(|(quoted, (_, now))| {
            let current = now.map(|now| now.price);
            // A product that is gone has no price to be lower than.
            let charge = current.map_or(quoted.price, |current| quote.honoured(&quoted.product_id, current));
            json!({ "product_id": quoted.product_id, "quoted": quoted.price, "current": current, "price": charge, "currency": quoted.currency })
        })
        .collect();
    Ok(Json(json!({ "honoured": true, "cart_id": quote.cart_id, "expires_at": quote.expires_at, "prices": prices })).into_response())
}

/// The current prices, in the order asked.
async fn prices(app: &Arc<App>, ids: Vec<ProductId>, headers: &HeaderMap) -> Result<Vec<(ProductId, Option<QuotedPrice>)>, Problem> {
    let one = |id: ProductId| async move {
        let question = query::Question { group: "products", key: id.as_str(), path: "price" };
        let answer = query::ask(app, &question, headers).await?;
        let price = answer.as_ref().and_then(|a| priced(&id, a));
        Ok::<_, Problem>((id, price))
    };
    stream::iter(ids).map(one).buffered(AT_A_TIME).try_collect().await
}

fn priced(id: &ProductId, answer: &Value) -> Option<QuotedPrice> {
    let price = Money::parse(answer.get("price")?.as_str()?).ok()?;
    let currency = answer.get("currency").and_then(Value::as_str).map(str::to_owned);
    Some(QuotedPrice { product_id: id.clone(), price, currency })
}

/// A scope's rule and the versions there were.
pub(crate) async fn rule(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(scope): Path<String>,
) -> Result<Response, Problem> {
    caller.needs(Level::Server)?;
    let rule = versions(&app, &scope).await?;
    rule.map(|rule| Json(rule).into_response())
        .ok_or_else(|| Problem::not_found(format!("there is no rule for '{}'", tillflow_schemas::shorten(&scope))))
}

async fn versions(app: &Arc<App>, scope: &str) -> Result<Option<Value>, Problem> {
    anywhere(app, "pricing/rules", scope).await
}

fn latest(rule: Option<&Value>) -> u64 {
    let versions = rule.and_then(|r| r.get("versions")?.as_array()).into_iter().flatten();
    versions.filter_map(|v| v.get("version")?.as_u64()).max().unwrap_or(0)
}

/// Writes a new version of a scope's rule. It counts from now, or from its `valid_from`. `if_version` refuses it where
/// somebody else wrote meanwhile.
pub(crate) async fn put_rule(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(scope): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    caller.needs(Level::Admin)?;
    let mut parameters: Map<String, Value> = ingest::json(&app, request).await?;
    let wrong = |message: String| Problem::new(StatusCode::BAD_REQUEST, "invalid_rule", message);
    let author = match parameters.remove("author") {
        Some(Value::String(author)) if !author.trim().is_empty() => author,
        Some(_) => return Err(wrong("author: is not a name".into())),
        None => "admin".into(),
    };
    if parameters.remove("scope").is_some_and(|given| given != json!(scope)) {
        return Err(wrong("scope: is not that of the address".into()));
    }
    parameters.remove("version");
    let if_version = parameters.remove("if_version");
    let _turn = app.rules.lock().await;
    let version = latest(versions(&app, &scope).await?.as_ref());
    if let Some(expected) = if_version
        && expected.as_u64() != Some(version)
    {
        return Err(Problem::new(StatusCode::CONFLICT, "version", format!("the rule is at version {version}, not {expected}")));
    }
    let now = (app.wall)();
    let new = version + 1;
    parameters.entry("valid_from").or_insert_with(|| json!(now));
    parameters.extend([("scope".into(), json!(scope)), ("version".into(), json!(new)), ("author".into(), json!(author))]);
    let event = Event::decode("pricing_rule", Some(&scope), Some(Value::Object(parameters).to_string().as_bytes()))?;
    check_rule(&event).map_err(wrong)?;
    ingest::append(&app, vec![ingest::encode(&event)?]).await?;
    let until = Instant::now() + RULE_COUNTS_WITHIN;
    while Instant::now() < until && !app.stop.is_cancelled() {
        let rule = versions(&app, &scope).await?;
        if latest(rule.as_ref()) >= new {
            return Ok(Json(rule.unwrap_or_default()).into_response());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok((StatusCode::ACCEPTED, Json(json!({ "scope": scope, "version": new, "status": "pending" }))).into_response())
}

fn check_rule(event: &Event) -> Result<(), String> {
    let Event::PricingRule(change) = event else { return Err("is no rule".into()) };
    change.value.as_ref().map_or(Err("is no rule".into()), |rule: &PricingRule| Layer::of(rule).map(drop))
}
