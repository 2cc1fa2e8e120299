//! Keys read again from state: the same fields, from the answers to queries instead of committed records.

use super::model::{Change, Key, Kind, apply};
use serde_json::Value;
use tillflow_engine::port::{PortError, Shop};

/// What became of a key that was to be read again.
pub(super) enum Fresh {
    /// Its fields now.
    Read(Key, Change),
    /// Its task is being restored: later.
    Later(Key),
    /// Nothing is known of it, or another instance owns it.
    Nothing,
}

/// Reads a key's fields from committed state. Blocks for reads of the store.
pub(super) fn read(shop: &Shop, key: Key) -> Fresh {
    // Which answers make up the key, and the schema whose fields each has.
    let parts: &[(&str, &str)] = match key.kind {
        Kind::Product => &[("", "product_price"), ("", "product_status"), ("related", "related_products")],
        Kind::User => &[("loyalty", "loyalty_update"), ("entitlements", "entitlements"), ("segments", "segments")],
        Kind::List => &[("recommendations", "recommendations")],
    };
    let mut change = Change::default();
    for (query, schema) in parts {
        match shop.query(key.kind.group(), query, &key.id, "") {
            Ok(Some(value)) if is_answer(&value) => apply(schema, &value, &mut change),
            Ok(_) | Err(PortError::NoSuchQuery(_)) => {}
            Err(PortError::Restoring | PortError::Unavailable(_)) => return Fresh::Later(key),
            Err(PortError::Elsewhere(_) | PortError::Unreachable(_)) => return Fresh::Nothing,
            Err(error) => {
                tracing::warn!(key = key.name(), %error, "can't be read for Redis");
                return Fresh::Nothing;
            }
        }
    }
    // What nothing is known of is left alone: the key may be another program's.
    change.0.retain(|_, value| value.is_some());
    if change.0.is_empty() || key.kind == Kind::List && change == Change::list("[]".into()) {
        return Fresh::Nothing;
    }
    Fresh::Read(key, change)
}

fn is_answer(value: &Value) -> bool {
    value.as_object().is_some_and(|fields| !fields.is_empty())
}
