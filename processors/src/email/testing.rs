//! A shop for the stories that tests tell: carts and e-mail, on one partition.

use super::Email;
use crate::shopper::Shopper;
use serde_json::{Value, json};
use tillflow_engine_api::{Group, testing::Driver};
use tillflow_schemas::{EmailResult, EmailTrigger, Segments, Timestamp, UserEvent};

/// A shop whose user `u` has an address and has consented.
pub struct Shop {
    pub driver: Driver,
}

impl Shop {
    /// With these settings, by section.
    pub fn with(settings: Value) -> Self {
        let settings = settings.as_object().cloned().unwrap_or_default();
        let group = Group::new::<UserEvent>("customers", None, &settings).with::<Shopper>("shopper").with::<Email>("email");
        Self::of(&group)
    }

    /// Of a whole group.
    pub fn of(group: &Group) -> Self {
        let mut shop = Self { driver: Driver::group(group) };
        shop.customer(json!({"email": "u@example.com", "first_name": "Ada", "consent": {"status": "granted"}}));
        shop
    }

    pub fn new() -> Self {
        Self::with(json!({}))
    }

    /// States `u` anew.
    pub fn customer(&mut self, mut fields: Value) -> &mut Self {
        fields["user_id"] = "u".into();
        self.driver.send_json("customer", fields);
        self
    }

    /// An event of `u`. `at` is a time of March 2026 such as `01T10:00`, or a whole time.
    pub fn event(&mut self, at: &str, event_type: &str, fields: Value) -> &mut Self {
        let mut event = json!({"event_type": event_type, "user_id": "u", "timestamp": time(at)});
        event.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.driver.send_json("user_event", event);
        assert_eq!(self.driver.failures, Vec::<String>::new());
        self
    }

    pub fn view(&mut self, at: &str, product: &str) -> &mut Self {
        self.event(at, "product_viewed", json!({"product_id": product}))
    }
    pub fn add(&mut self, at: &str, product: &str) -> &mut Self {
        self.event(at, "added_to_cart", json!({"product_id": product, "price": "10.00"}))
    }
    pub fn order(&mut self, at: &str, id: &str, total: &str) -> &mut Self {
        let items = json!([{"product_id": "p1", "quantity": 1}]);
        self.event(at, "order_completed", json!({"order_id": id, "total_amount": total, "items": items}))
    }

    /// Time passes.
    pub fn until(&mut self, at: &str) -> &mut Self {
        self.driver.advance(time(at));
        assert_eq!(self.driver.failures, Vec::<String>::new());
        self
    }

    pub fn product(&mut self, id: &str, category: &str) -> &mut Self {
        self.driver.global(product(id, category));
        self
    }

    pub fn triggers(&mut self) -> Vec<EmailTrigger> {
        self.driver.emitted()
    }

    /// Templates and times of the mails released since the last call.
    pub fn mails(&mut self) -> Vec<(String, String)> {
        self.triggers().into_iter().map(|t| (t.template, short(t.send_after))).collect()
    }

    /// What was said of mails not released since the last call.
    pub fn results(&mut self) -> Vec<(String, String)> {
        self.driver.emitted::<EmailResult>().into_iter().map(|r| (r.status, r.detail)).collect()
    }

    /// Changes of segments since the last call: time, entered, left.
    pub fn changes(&mut self) -> Vec<(String, Vec<String>, Vec<String>)> {
        self.driver.emitted::<Segments>().into_iter().map(|s| (short(s.at), s.entered, s.left)).collect()
    }

    /// The segments `u` is in, by the query.
    pub fn segments(&mut self) -> Vec<String> {
        let answer = self.driver.query("segments", "u", "").unwrap().unwrap();
        serde_json::from_value(answer["segments"].clone()).unwrap()
    }
}

pub fn product(id: &str, category: &str) -> tillflow_schemas::Product {
    tillflow_schemas::Product { product_id: id.into(), name: format!("The {id}"), category: category.into(), ..Default::default() }
}

pub fn time(at: &str) -> Timestamp {
    let text = if at.len() > 16 { at.to_owned() } else { format!("2026-03-{at}:00Z") };
    Timestamp::parse(&text).unwrap()
}

/// `2026-03-01T10:00:00.000Z` as `01T10:00` where it is of March 2026 and a whole minute.
fn short(at: Timestamp) -> String {
    let text = at.to_string();
    match text.strip_prefix("2026-03-").and_then(|t| t.strip_suffix(":00.000Z")) {
        Some(short) => short.to_owned(),
        None => text,
    }
}
