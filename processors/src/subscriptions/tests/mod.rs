//! Stories of a shop with subscriptions.

mod boxes;
mod entitlements;
mod lives;
mod together;

use super::*;
use serde_json::{Value, json};
use tillflow_engine_api::{Group, testing::Driver};
use tillflow_schemas::{BoxContents, EntryKind, Inventory, Product, ProductCommand, ProductStatus, UserEvent, UserEventKind};

/// Stands for the loyalty programme: a page called after a tier brings its visitor there.
struct Tiers {
    updates: Output<LoyaltyUpdate>,
}

impl Processor for Tiers {
    fn declare(d: &mut Declare<'_>) -> Self {
        d.input::<UserEvent>();
        Self { updates: d.output() }
    }
    fn process(&mut self, event: &Event, cx: &mut Context<'_>) -> Result<()> {
        let Event::User(UserEvent { user_id: Some(user_id), kind: UserEventKind::PageViewed { url: Some(tier) }, .. }) = event else {
            return Ok(());
        };
        let update = LoyaltyUpdate {
            entry_id: "e".into(),
            user_id: user_id.clone(),
            kind: EntryKind::Adjust,
            points: 0,
            lifetime_change: 0,
            balance: 0,
            lifetime_points: 0,
            tier: tier.clone(),
            order_id: None,
            command_id: None,
            note: String::new(),
            at: cx.now(),
        };
        cx.emit(&self.updates, update)
    }
}

/// Both task groups of a shop, and what goes between them.
struct Shop {
    customers: Driver,
    products: Driver,
}

impl Shop {
    fn new() -> Self {
        Self::with(json!({}))
    }

    fn with(settings: Value) -> Self {
        let settings = settings.as_object().cloned().unwrap_or_default();
        let customers = Group::new::<UserEvent>("customers", None, &settings)
            .with::<crate::shopper::Shopper>("shopper")
            .with::<Tiers>("tiers")
            .with::<Subscriptions>("subscriptions");
        let products = Group::new::<Inventory>("products", Some("customers"), &settings).with::<BoxStock>("box_stock");
        Self { customers: Driver::group(&customers), products: Driver::group(&products) }
    }

    /// A product with `level` pieces in stock.
    fn product(&mut self, product: Product, level: i64) -> &mut Self {
        let (product_id, at) = (product.product_id.clone(), at("2020-01-01"));
        self.customers.global(product);
        self.customers.global(ProductStatus { product_id: product_id.clone(), stock_level: Some(level), price: None, at });
        self.products.send(Event::Inventory(Inventory { product_id, stock_level: level, last_updated: at }));
        self
    }

    /// `exclusives` exclusive products e00, e01, … and `standard` ones s00, s01, …, plenty of each.
    fn shelf(&mut self, exclusives: usize, standard: usize) -> &mut Self {
        for (prefix, count) in [("e", exclusives), ("s", standard)] {
            for i in 0..count {
                let product = Product {
                    product_id: format!("{prefix}{i:02}").into(),
                    exclusive: prefix == "e",
                    box_eligible: true,
                    ..Product::default()
                };
                self.product(product, 1_000);
            }
        }
        self
    }

    /// A subscription event of u, such as `("2026-03-01", "started basic_box", {…})`; what is due by then happens.
    fn subscription(&mut self, when: &str, what: &str, fields: Value) -> &mut Self {
        let (action, plan_id) = what.split_once(' ').unwrap_or((what, ""));
        let mut event = json!({"user_id": "u", "timestamp": at(when), "action": action, "plan_id": plan_id});
        event.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.customers.send_json("subscription_event", event);
        self.until(when)
    }

    fn event(&mut self, when: &str, event_type: &str, fields: Value) -> &mut Self {
        let mut event = json!({"user_id": "u", "timestamp": at(when), "event_type": event_type});
        event.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.customers.send_json("user_event", event);
        self.exchange()
    }

    fn signal(&mut self, when: &str, kind: &str, data: Value) -> &mut Self {
        let signal = json!({"user_id": "u", "signal_id": format!("{kind}{when}{data}"), "at": at(when), "kind": kind, "data": data});
        self.customers.send_json("customer_signal", signal);
        self
    }

    fn until(&mut self, when: &str) -> &mut Self {
        self.customers.advance(at(when));
        self.exchange()
    }

    /// Carries requests to the products' owner and answers back, until there are none.
    fn exchange(&mut self) -> &mut Self {
        loop {
            let requests = self.customers.emitted::<ProductCommand>();
            for request in &requests {
                self.products.send(Event::ProductCommand(request.clone()));
            }
            let answers = self.products.emitted::<CustomerSignal>();
            for answer in &answers {
                self.customers.send(Event::CustomerSignal(answer.clone()));
            }
            if requests.is_empty() && answers.is_empty() {
                return self;
            }
        }
    }

    /// Status and plan of each entitlement emitted since last asked.
    fn statuses(&mut self) -> Vec<String> {
        let emitted = self.customers.emitted::<Entitlements>();
        emitted.into_iter().map(|e| format!("{} {}", e.plan_id.as_ref().map_or("-", |p| p.as_str()), e.status)).collect()
    }

    /// The entitlements in force.
    fn now(&mut self) -> Value {
        self.customers.query("entitlements", "u", "").unwrap().unwrap()
    }

    fn feature(&mut self, feature: &str) -> Value {
        self.customers.query("entitlements", "u", feature).unwrap().unwrap()
    }

    fn has(&mut self, feature: &str) -> bool {
        self.feature(feature)["has"] == json!(true)
    }

    fn boxes(&mut self) -> Vec<BoxContents> {
        self.customers.emitted()
    }

    /// Data of the notifications of one kind since last asked; the others are let go.
    fn notices(&mut self, kind: &str) -> Vec<Value> {
        let all = self.customers.emitted::<Notification>();
        all.into_iter().filter(|n| n.kind == kind).map(|n| Value::Object(n.data)).collect()
    }

    /// The last failure, which is thereby expected.
    fn refusal(&mut self) -> String {
        self.customers.failures.pop().unwrap_or_default()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.customers.failures, Vec::<String>::new());
            assert_eq!(self.products.failures, Vec::<String>::new());
        }
    }
}

/// A day, or a day and a time.
fn at(text: &str) -> Timestamp {
    let text = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    Timestamp::parse(&text).unwrap()
}

fn plan(plan_id: &str, price: &str, features: Value) -> tillflow_schemas::Plan {
    serde_json::from_value(json!({"plan_id": plan_id, "name": plan_id, "price": price, "interval": "month", "features": features})).unwrap()
}
