//! What can be asked of an account.

use super::{account::Account, settings::LoyaltySettings, tables::Tables};
use serde_json::{Value, json};
use std::sync::Arc;
use tillflow_engine_api::{Declare, Error, Query, Result};
use tillflow_schemas::UserId;

/// Entries of a page of the ledger.
const PAGE: usize = 50;

/// Declares the queries.
pub(super) fn declare(d: &mut Declare<'_>, tables: Tables, rules: &Arc<LoyaltySettings>) {
    let of = rules.clone();
    d.query("loyalty", move |q| summary(q, tables, &of).map(Some));
    d.query("loyalty/ledger", move |q| ledger(q, tables).map(Some));
    let of = rules.clone();
    d.query("loyalty/badges", move |q| {
        let account = account(q, tables)?;
        Ok(Some(json!({"user_id": q.key, "badges": account.badges, "benefits": of.benefits(&tier(&of, &account))})))
    });
}

fn account(q: &Query<'_>, tables: Tables) -> Result<Account> {
    Ok(q.get(&tables.accounts, &UserId::from(q.key))?.unwrap_or_default())
}

fn tier(rules: &LoyaltySettings, account: &Account) -> String {
    rules.tier(account).map(|t| t.name.clone()).unwrap_or_default()
}

/// Balance and tier; an unknown user has nothing and the lowest tier.
fn summary(q: &Query<'_>, tables: Tables, rules: &LoyaltySettings) -> Result<Value> {
    let account = account(q, tables)?;
    let next = rules.next_tier(&account);
    Ok(json!({
        "user_id": q.key,
        "balance": account.balance,
        "lifetime_points": account.lifetime_points,
        "tier": tier(rules, &account),
        "next_tier": next.map(|t| t.name.as_str()),
        "points_to_next": next.map(|t| t.from - rules.measure(&account)),
        "pending": account.pending,
    }))
}

/// The ledger, newest first, a page at a time: `next` of one page is the path of the following one.
fn ledger(q: &Query<'_>, tables: Tables) -> Result<Value> {
    let user = UserId::from(q.key);
    let from: u64 = match q.rest {
        "" => 0,
        page => page.parse().map_err(|_| Error::reject(format!("'{page}' is not a page of the ledger")))?,
    };
    let mut entries = Vec::new();
    let mut next = None;
    tables.ledger.scan(q.state, &user, |(_, number), entry| {
        if number < from {
            return true;
        }
        if entries.len() == PAGE {
            next = Some(number.to_string());
            return false;
        }
        entries.push(entry.update(user.clone()));
        true
    })?;
    Ok(json!({"user_id": q.key, "entries": entries, "next": next}))
}
