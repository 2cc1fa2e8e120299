//! The programme told as a shop's stories.

mod badges;
mod challenges;
mod earning;
mod expiry;
mod online_retail;
mod pending;
mod properties;
mod referrals;
mod refunds;
mod rewards;
mod spins;

use super::Loyalty;
use crate::shopper::Shopper;
use serde_json::{Map, Value, json};
use tillflow_engine_api::{Group, testing::Driver};
use tillflow_schemas::{CustomerSignal, LoyaltyUpdate, Notification, Record, Timestamp, UserEvent};

/// A shop with nothing but the loyalty programme and what it needs of a shopper. What partitions tell each other arrives at once.
struct Shop {
    driver: Driver,
    numbered: u32,
}

impl Shop {
    fn new() -> Self {
        Self::with(json!({}))
    }

    /// With these settings of the section `loyalty`.
    fn with(loyalty: Value) -> Self {
        Self::configured(json!({"loyalty": loyalty}))
    }

    fn configured(settings: Value) -> Self {
        let group = Group::new::<UserEvent>("customers", None, settings.as_object().unwrap());
        Self { driver: Driver::group(&group.with::<Shopper>("shopper").with::<Loyalty>("loyalty")), numbered: 0 }
    }

    fn send(&mut self, schema: &str, at: &str, mut value: Value, fields: Value) -> &mut Self {
        let object = value.as_object_mut().unwrap();
        object.extend(fields.as_object().cloned().unwrap_or_default());
        object.insert("timestamp".into(), json!(moment(at)));
        self.driver.send_json(schema, value);
        self.deliver();
        self
    }

    /// Delivers what the partitions tell each other.
    fn deliver(&mut self) {
        loop {
            let signals = self.driver.emitted::<CustomerSignal>();
            if signals.is_empty() {
                return;
            }
            for signal in signals {
                self.driver.send(signal.into_event());
            }
        }
    }

    fn event(&mut self, at: &str, user: &str, event_type: &str, fields: Value) -> &mut Self {
        self.numbered += 1;
        let id = format!("e{}", self.numbered);
        self.send("user_event", at, json!({"event_type": event_type, "user_id": user, "event_id": id}), fields)
    }

    fn order(&mut self, at: &str, user: &str, order_id: &str, total: &str) -> &mut Self {
        self.event(at, user, "order_completed", json!({"order_id": order_id, "total_amount": total}))
    }

    fn refund(&mut self, at: &str, user: &str, refund_id: &str, fields: Value) -> &mut Self {
        let mut fields = fields;
        fields.as_object_mut().unwrap().insert("refund_id".into(), refund_id.into());
        self.event(at, user, "order_refunded", fields)
    }

    fn command(&mut self, at: &str, user: &str, command_id: &str, action: &str, fields: Value) -> &mut Self {
        self.send("loyalty_command", at, json!({"user_id": user, "command_id": command_id, "action": action}), fields)
    }

    fn customer(&mut self, user: &str, fields: Value) -> &mut Self {
        let mut customer = json!({"user_id": user});
        customer.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.driver.send_json("customer", customer);
        self
    }

    fn advance(&mut self, to: &str) -> &mut Self {
        self.driver.advance(moment(to));
        self.deliver();
        self
    }

    /// The entries since the last look, as `id kind points/lifetime → balance/lifetime tier`.
    fn entries(&mut self) -> Vec<String> {
        self.updates().iter().map(line).collect()
    }

    fn updates(&mut self) -> Vec<LoyaltyUpdate> {
        self.driver.emitted()
    }

    /// Notifications of these kinds since the last look at any, as `user kind data…`.
    fn told(&mut self, kinds: &[&str]) -> Vec<(String, String, Map<String, Value>)> {
        let all = self.driver.emitted::<Notification>();
        all.into_iter().filter(|n| kinds.contains(&n.kind.as_str())).map(|n| (n.user_id.into_string(), n.kind, n.data)).collect()
    }

    /// As `told`, with one field of the data.
    fn told_of(&mut self, kind: &str, field: &str) -> Vec<String> {
        self.told(&[kind])
            .into_iter()
            .map(|(_, _, data)| data[field].as_str().map_or_else(|| data[field].to_string(), str::to_owned))
            .collect()
    }

    fn loyalty(&mut self, user: &str) -> Value {
        self.driver.query("loyalty", user, "").unwrap().unwrap()
    }

    fn sums(&mut self, user: &str) -> (i64, i64, String) {
        let l = self.loyalty(user);
        (l["balance"].as_i64().unwrap(), l["lifetime_points"].as_i64().unwrap(), l["tier"].as_str().unwrap().into())
    }

    fn failures(&mut self) -> Vec<String> {
        std::mem::take(&mut self.driver.failures)
    }
}

/// `2026-03-01` or `2026-03-01T10:00`, in UTC.
fn moment(text: &str) -> Timestamp {
    let full = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        16 => format!("{text}:00Z"),
        _ => text.to_owned(),
    };
    Timestamp::parse(&full).unwrap()
}

fn line(u: &LoyaltyUpdate) -> String {
    let kind = serde_json::to_value(u.kind).unwrap();
    format!(
        "{} {} {:+}/{:+} → {}/{} {}",
        u.entry_id,
        kind.as_str().unwrap(),
        u.points,
        u.lifetime_change,
        u.balance,
        u.lifetime_points,
        u.tier
    )
}

/// A rule that gives no spins and no challenge, for stories of other things.
fn plain() -> Value {
    json!({"spin": {"per_order": 0}, "challenges": {"three_purchases": {"points": 50, "goal": "orders", "target": 3, "enabled": false}}})
}

#[test]
fn an_unknown_user_has_nothing_and_the_lowest_tier() {
    let mut shop = Shop::new();
    let nobody = shop.loyalty("nobody");
    assert_eq!(
        nobody,
        json!({"user_id": "nobody", "balance": 0, "lifetime_points": 0, "tier": "bronze", "next_tier": "silver", "points_to_next": 500,
            "pending": 0})
    );
    let ledger = shop.driver.query("loyalty/ledger", "nobody", "").unwrap().unwrap();
    assert_eq!(ledger, json!({"user_id": "nobody", "entries": [], "next": null}));
}

#[test]
fn the_ledger_comes_newest_first_a_page_at_a_time() {
    let mut shop = Shop::with(plain());
    for i in 0..120 {
        shop.order("2026-03-01", "u", &format!("o{i}"), "1");
    }
    let mut page = String::new();
    let mut seen = Vec::new();
    loop {
        let answer = shop.driver.query("loyalty/ledger", "u", &page).unwrap().unwrap();
        let entries = answer["entries"].as_array().unwrap();
        assert!(entries.len() <= 50);
        seen.extend(entries.iter().map(|e| e["entry_id"].as_str().unwrap().to_owned()));
        match answer["next"].as_str() {
            Some(next) => page = next.into(),
            None => break,
        }
    }
    assert_eq!(seen, (0..120).rev().map(|i| format!("order:o{i}")).collect::<Vec<_>>());
    let newest = shop.updates().pop().unwrap();
    let first = shop.driver.query("loyalty/ledger", "u", "").unwrap().unwrap()["entries"][0].clone();
    assert_eq!(first, serde_json::to_value(newest).unwrap());
    assert!(shop.driver.query("loyalty/ledger", "u", "first").is_err());
}

#[test]
fn guests_and_anonymous_visitors_take_no_part() {
    let mut shop = Shop::new();
    for who in [json!({}), json!({"anonymous_id": "a"})] {
        let mut event = json!({"event_type": "order_completed", "order_id": "o", "total_amount": "100", "timestamp": moment("2026-03-01")});
        event.as_object_mut().unwrap().extend(who.as_object().unwrap().clone());
        shop.driver.send_json("user_event", event);
    }
    assert!(shop.updates().is_empty());
    assert!(shop.driver.emitted::<Notification>().is_empty());
    assert_eq!(shop.sums("a"), (0, 0, "bronze".into()));
}

#[test]
fn the_programme_has_its_place_among_the_customers_systems() {
    let groups = crate::groups(&Map::new());
    let catalog = tillflow_schemas::Catalog::built_in(4).unwrap();
    let group = groups.iter().find(|g| g.parts.iter().any(|p| p.name == "loyalty")).unwrap();
    assert_eq!(group.name, "customers");
    assert_eq!(group.problems(&catalog), Vec::<String>::new());
}

#[test]
fn wrong_settings_are_named_at_start() {
    let settings = json!({"loyalty": {"tiers": []}, "shop": {"timezone": "Mars/Olympus"}});
    let group = tillflow_engine_api::Group::new::<tillflow_schemas::UserEvent>("customers", None, settings.as_object().unwrap());
    let problems: Vec<_> = group.with::<Loyalty>("loyalty").parts.iter().flat_map(|p| p.declared.problems.clone()).collect();
    assert!(problems.iter().any(|p| p.starts_with("loyalty.tiers")), "{problems:?}");
    assert!(problems.iter().any(|p| p.starts_with("shop.timezone")), "{problems:?}");
}
