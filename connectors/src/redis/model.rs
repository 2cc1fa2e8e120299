//! What stands in Redis, and how a committed record, or the answer to a query, changes it.

use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};
use tillflow_engine::port::Committed;

/// What comes after a user's id in the name of their list and of its channel.
const LIST: &str = ":recommendations";

/// Something that stands in Redis under a name of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub kind: Kind,
    pub id: Arc<str>,
}

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// The hash `product:{product_id}`.
    Product,
    /// The hash `user:{user_id}`.
    User,
    /// The string `user:{user_id}:recommendations`.
    List,
}

impl Kind {
    /// The task group that owns it.
    pub fn group(self) -> &'static str {
        if self == Self::Product { "products" } else { "customers" }
    }
}

impl Key {
    /// The key; none where its name would be another's: a user called `u1:recommendations` would stand where the list
    /// of `u1` does.
    pub fn new(kind: Kind, id: &str) -> Option<Self> {
        let free = !id.is_empty() && (kind == Kind::Product || !id.ends_with(LIST));
        free.then(|| Self { kind, id: id.into() })
    }

    /// Its name in Redis, where names are any bytes: no id needs escaping.
    pub fn name(&self) -> String {
        match self.kind {
            Kind::Product => format!("product:{}", self.id),
            Kind::User => format!("user:{}", self.id),
            Kind::List => format!("user:{}{LIST}", self.id),
        }
    }

    /// The key of a hash found in Redis.
    pub fn of_name(name: &str) -> Option<Self> {
        match name.split_once(':')? {
            ("product", id) => Self::new(Kind::Product, id),
            ("user", id) => Self::new(Kind::User, id),
            _ => None,
        }
    }
}

/// The fields that change, by name; without a value they go. A list has one field without a name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Change(pub BTreeMap<&'static str, Option<String>>);

impl Change {
    pub fn list(ids: String) -> Self {
        Self([("", Some(ids))].into())
    }

    /// Lays a later change over this one.
    pub fn then(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    fn set(&mut self, field: &'static str, value: Option<String>) {
        self.0.insert(field, value);
    }
}

/// What a committed record changes.
pub(super) fn of_record(record: &Committed) -> Option<(Key, Change)> {
    let kind = match record.schema.as_str() {
        "product_price" | "related_products" | "price_change" | "product_status" => Kind::Product,
        "loyalty_update" | "entitlements" | "segments" => Kind::User,
        "recommendations" => Kind::List,
        _ => return None,
    };
    let key = Key::new(kind, &record.key)?;
    let value: Value = match &record.value {
        Some(bytes) => serde_json::from_slice(bytes).ok()?,
        None => Value::Null,
    };
    let mut change = Change::default();
    apply(&record.schema, &value, &mut change);
    (!change.0.is_empty()).then_some((key, change))
}

/// What a value of that schema says; a deleted one (null) empties its fields.
pub(super) fn apply(schema: &str, value: &Value, change: &mut Change) {
    match schema {
        "product_price" => {
            for field in ["price", "currency", "since"] {
                change.set(field, text(value.get(field)));
            }
        }
        // Decisions carry the stock they were made at; the price in force has a topic of its own, shadow prices none.
        "price_change" | "product_status" => {
            if let Some(stock) = text(value.get("stock_level")) {
                change.set("stock", Some(stock));
            }
        }
        "related_products" => change.set("related", ids(value.get("related"))),
        "recommendations" => {
            if let Some(ids) = ids(value.get("items")) {
                change.set("", Some(ids));
            }
        }
        "loyalty_update" => {
            for field in ["tier", "balance", "lifetime_points"] {
                change.set(field, text(value.get(field)));
            }
        }
        "entitlements" => {
            change.set("plan", text(value.get("plan_id")));
            change.set("plan_status", text(value.get("status")));
            change.set("features", json(value.get("features")));
        }
        "segments" => change.set("segments", json(value.get("segments"))),
        _ => {}
    }
}

/// A JSON list of the product ids of a list of items, best first.
pub(super) fn ids(items: Option<&Value>) -> Option<String> {
    let items = items?.as_array()?;
    let ids: Vec<&Value> = items.iter().filter_map(|item| item.get("product_id")).collect();
    serde_json::to_string(&ids).ok()
}

fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn json(value: Option<&Value>) -> Option<String> {
    value.filter(|v| !v.is_null()).map(Value::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tillflow_schemas::Timestamp;

    fn record(schema: &str, key: &str, value: Option<Value>) -> Committed {
        Committed {
            topic: String::new(),
            schema: schema.into(),
            partition: 0,
            offset: 0,
            at: Timestamp::EARLIEST,
            key: key.into(),
            value: value.map(|v| v.to_string().into_bytes()),
        }
    }

    fn fields(schema: &str, key: &str, value: Value) -> (String, Vec<(&'static str, String)>) {
        let (key, change) = of_record(&record(schema, key, Some(value))).unwrap();
        (key.name(), change.0.into_iter().map(|(f, v)| (f, v.unwrap_or_else(|| "-".into()))).collect())
    }

    #[test]
    fn each_decision_changes_the_fields_that_the_contract_names() {
        let price = json!({ "product_id": "p1", "price": "9.90", "currency": null, "since": "2026-03-01T10:00:00.000Z" });
        let expected = vec![("currency", "-".into()), ("price", "9.90".into()), ("since", "2026-03-01T10:00:00.000Z".into())];
        assert_eq!(fields("product_price", "p1", price), ("product:p1".into(), expected));
        let related = json!({ "related": [{ "product_id": "p2", "score": 1.0 }, { "product_id": "p3" }] });
        assert_eq!(fields("related_products", "p1", related).1, [("related", r#"["p2","p3"]"#.into())]);
        let change = json!({ "new_price": "1.00", "mode": "shadow", "stock_level": 15 });
        assert_eq!(fields("price_change", "p1", change).1, [("stock", "15".into())]);
        let entry = json!({ "tier": "gold", "balance": -5, "lifetime_points": 2000, "points": -5 });
        let expected = vec![("balance", "-5".into()), ("lifetime_points", "2000".into()), ("tier", "gold".into())];
        assert_eq!(fields("loyalty_update", "u1", entry), ("user:u1".into(), expected));
        let plan = json!({ "plan_id": "deluxe_box", "status": "active", "features": { "early_access": "true" } });
        let expected =
            vec![("features", r#"{"early_access":"true"}"#.into()), ("plan", "deluxe_box".into()), ("plan_status", "active".into())];
        assert_eq!(fields("entitlements", "u1", plan).1, expected);
        assert_eq!(fields("segments", "u1", json!({ "segments": ["new"] })).1, [("segments", r#"["new"]"#.into())]);
        let items = json!({ "items": [{ "product_id": "p7" }, { "product_id": "p3" }] });
        assert_eq!(fields("recommendations", "u1", items), ("user:u1:recommendations".into(), vec![("", r#"["p7","p3"]"#.into())]));
    }

    #[test]
    fn a_deleted_value_empties_its_fields_and_a_later_change_wins() {
        let (_, mut change) = of_record(&record("segments", "u1", Some(json!({ "segments": [] })))).unwrap();
        let (_, gone) = of_record(&record("segments", "u1", None)).unwrap();
        change.then(gone);
        assert_eq!(change.0, [("segments", None)].into());
    }

    #[test]
    fn odd_ids_keep_their_names_and_none_takes_anothers() {
        for id in ["*", "a:b", "{x}", "ü ", "user:1", "%"] {
            let key = Key::new(Kind::User, id).unwrap();
            assert_eq!(Key::of_name(&key.name()), Some(key));
        }
        assert_eq!(Key::new(Kind::User, "u1:recommendations"), None);
        assert!(Key::new(Kind::Product, "p:recommendations").is_some());
        assert_eq!(Key::of_name("user:u1:recommendations"), None);
        assert_eq!(Key::of_name("session:1"), None);
    }

    #[test]
    fn what_is_not_for_redis_or_not_json_changes_nothing() {
        assert!(of_record(&record("email_trigger", "u1", Some(json!({})))).is_none());
        let mut broken = record("segments", "u1", None);
        broken.value = Some(b"{".to_vec());
        assert!(of_record(&broken).is_none());
        assert!(of_record(&record("recommendations", "u1", None)).is_none());
    }
}
