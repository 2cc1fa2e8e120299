//! Any record of what the shop sends.

use crate::*;
use proptest::{collection::vec, option, prelude::*};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub fn id() -> impl Strategy<Value = String> {
    "[^\\p{Cc}\\s][^\\p{Cc}]{0,11}"
}

pub fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), Just(String::new()), "[ -~]{0,20}"]
}

pub fn time() -> impl Strategy<Value = Timestamp> {
    (Timestamp::EARLIEST.millis()..=Timestamp::LATEST.millis()).prop_map(Timestamp::from_millis)
}

/// From 0 to 10^12 with so many places: all that the contract allows and the schema keeps.
fn amount(places: u32) -> impl Strategy<Value = Money> {
    let digits = 10_i128.pow(12 + places);
    (0..=digits, 0..=places).prop_map(move |(unscaled, places)| {
        let highest = 10_i128.pow(12 + places);
        rust_decimal::Decimal::from_i128_with_scale(unscaled.min(highest), places).into()
    })
}

/// What inputs may carry.
pub fn price() -> impl Strategy<Value = Money> {
    amount(15)
}

/// What outputs carry: the digits of a currency.
pub fn rounded() -> impl Strategy<Value = Money> {
    amount(4)
}

pub fn number() -> impl Strategy<Value = f64> {
    use proptest::num::f64::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO
}

pub fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        number().prop_map(Value::from),
        text().prop_map(Value::from),
    ]
}

pub fn json() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((text(), inner), 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

pub fn object() -> impl Strategy<Value = Map<String, Value>> {
    vec((text(), json()), 0..4).prop_map(|members| members.into_iter().collect())
}

pub fn features() -> impl Strategy<Value = BTreeMap<String, Value>> {
    vec((text(), scalar()), 1..4).prop_map(|f| f.into_iter().collect())
}

/// Members beside a definition's own: any name but those.
fn fields() -> impl Strategy<Value = BTreeMap<String, Value>> {
    vec((text().prop_map(|name| format!("x{name}")), json()), 0..4).prop_map(|f| f.into_iter().collect())
}

pub fn user_id() -> impl Strategy<Value = UserId> {
    id().prop_map(UserId::from)
}

pub fn product_id() -> impl Strategy<Value = ProductId> {
    id().prop_map(ProductId::from)
}

fn currency() -> impl Strategy<Value = Option<String>> {
    option::of("[A-Z]{3}")
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    let item = (product_id(), 1..=1_000_000_u32, option::of(price()));
    vec(item.prop_map(|(product_id, quantity, price)| Item { product_id, quantity, price }), 0..4)
}

fn kind() -> impl Strategy<Value = UserEventKind> {
    use UserEventKind as K;
    let quantity = || 1..=1_000_000_u32;
    let known = "(product|added|removed|checkout|order|recommendation|back|email|signed|page)_.*";
    let unknown = id().prop_filter("a kind that is not known", move |t| !t.starts_with(|c: char| known.contains(c)));
    prop_oneof![
        (product_id(), option::of(0..=i64::MAX as u64)).prop_map(|(product_id, dwell_ms)| K::ProductViewed { product_id, dwell_ms }),
        (product_id(), quantity(), option::of(price())).prop_map(|(product_id, quantity, price)| K::AddedToCart {
            product_id,
            quantity,
            price
        }),
        (product_id(), quantity()).prop_map(|(product_id, quantity)| K::RemovedFromCart { product_id, quantity }),
        option::of(id()).prop_map(|cart_id| K::CheckoutStarted { cart_id }),
        (id(), option::of(price()), currency(), items(), option::of(text())).prop_map(
            |(order_id, total_amount, currency, items, discount_code)| K::OrderCompleted(Order {
                order_id: order_id.into(),
                total_amount,
                currency,
                items,
                discount_code
            })
        ),
        (option::of(id()), option::of(id()), option::of(price()), currency(), items()).prop_map(
            |(refund_id, order_id, amount, currency, items)| K::OrderRefunded(Refund {
                refund_id,
                order_id: order_id.map(OrderId::from),
                amount,
                currency,
                items
            })
        ),
        id().prop_map(|order_id| K::OrderCancelled { order_id: order_id.into() }),
        (product_id(), option::of(any::<u8>())).prop_map(|(product_id, rating)| K::ProductReviewed { product_id, rating }),
        (product_id(), option::of(text())).prop_map(|(product_id, kind)| K::RecommendationShown { product_id, kind }),
        (product_id(), option::of(text())).prop_map(|(product_id, kind)| K::RecommendationClicked { product_id, kind }),
        product_id().prop_map(|product_id| K::BackInStockRequested { product_id }),
        id().prop_map(|message_id| K::EmailDelivered { message_id }),
        id().prop_map(|message_id| K::EmailOpened { message_id }),
        id().prop_map(|message_id| K::EmailClicked { message_id }),
        (id(), any::<bool>()).prop_map(|(message_id, hard)| K::EmailBounced { message_id, hard }),
        id().prop_map(|message_id| K::EmailComplained { message_id }),
        option::of(id()).prop_map(|message_id| K::EmailUnsubscribed { message_id }),
        option::of(user_id()).prop_map(|referrer_id| K::SignedUp { referrer_id }),
        option::of(text()).prop_map(|url| K::PageViewed { url }),
        unknown.prop_map(|event_type| K::Unknown { event_type }),
    ]
}

pub fn user_event() -> impl Strategy<Value = UserEvent> {
    (option::of(id()), option::of(user_id()), option::of(user_id()), option::of(id()), time(), kind()).prop_map(
        |(event_id, user_id, anonymous_id, session_id, timestamp, kind)| UserEvent {
            event_id,
            user_id,
            anonymous_id,
            session_id,
            timestamp,
            kind,
        },
    )
}

fn subscription() -> impl Strategy<Value = SubscriptionEvent> {
    use SubscriptionAction as A;
    let action = prop_oneof![
        option::of(time()).prop_map(|trial_until| A::Started { trial_until }),
        Just(A::Changed),
        Just(A::Paused),
        Just(A::Resumed),
        Just(A::Skipped),
        (product_id(), product_id()).prop_map(|(from, to)| A::Swapped { from, to }),
        Just(A::Renewed),
        Just(A::PaymentFailed),
        any::<bool>().prop_map(|at_period_end| A::Cancelled { at_period_end }),
    ];
    (option::of(id()), user_id(), time(), option::of(id()), id(), action, option::of(time())).prop_map(
        |(event_id, user_id, timestamp, subscription_id, plan_id, action, effective_at)| SubscriptionEvent {
            event_id,
            user_id,
            timestamp,
            subscription_id: subscription_id.map(SubscriptionId::from),
            plan_id: plan_id.into(),
            action,
            effective_at,
        },
    )
}

fn command() -> impl Strategy<Value = LoyaltyCommand> {
    use LoyaltyAction as A;
    let action = prop_oneof![
        id().prop_map(|reward_id| A::Redeem { reward_id }),
        id().prop_map(|entry_id| A::Reverse { entry_id }),
        id().prop_map(|spin_id| A::Spin { spin_id }),
        (any::<i64>(), text()).prop_map(|(points, note)| A::Adjust { points, note }),
        user_id().prop_map(|referred_user_id| A::Refer { referred_user_id }),
    ];
    (id(), user_id(), time(), action).prop_map(|(command_id, user_id, timestamp, action)| LoyaltyCommand {
        command_id,
        user_id,
        timestamp,
        action,
    })
}

fn product() -> impl Strategy<Value = Product> {
    let names = (product_id(), text(), option::of(text()), option::of(text()), text(), currency());
    let bounds = (price(), option::of(price()), option::of((price(), price())));
    let rest = (any::<bool>(), any::<bool>(), option::of(time()), vec(text(), 0..3), option::of(text()), option::of(time()));
    (names, bounds, rest).prop_map(|(names, (base_price, cost, bounds), rest)| Product {
        product_id: names.0,
        name: names.1,
        description: names.2,
        url: names.3,
        category: names.4,
        base_price,
        currency: names.5,
        cost,
        min_price: bounds.map(|(a, b)| a.min(b)),
        max_price: bounds.map(|(a, b)| a.max(b)),
        exclusive: rest.0,
        box_eligible: rest.1,
        early_access_until: rest.2,
        tags: rest.3,
        image_url: rest.4,
        valid_from: rest.5,
    })
}

fn customer() -> impl Strategy<Value = Customer> {
    let status = prop_oneof![Just(ConsentStatus::Granted), Just(ConsentStatus::Pending), Just(ConsentStatus::Withdrawn)];
    let consent = (status, option::of(time()), option::of(text()), option::of(text()))
        .prop_map(|(status, at, source, text_version)| Consent { status, at, source, text_version });
    let texts = (option::of(text()), option::of(text()), option::of(text()), option::of(text()), option::of(text()));
    (user_id(), texts, option::of(consent), vec(text(), 0..3), option::of(time())).prop_map(
        |(user_id, texts, consent, interests, valid_from)| Customer {
            user_id,
            email: texts.0,
            first_name: texts.1,
            birthday: texts.2,
            country: texts.3,
            timezone: texts.4,
            consent,
            interests,
            valid_from,
        },
    )
}

fn rule() -> impl Strategy<Value = PricingRule> {
    let scope =
        prop_oneof![Just("default".to_owned()), id().prop_map(|c| format!("category:{c}")), id().prop_map(|p| format!("product:{p}"))];
    (scope, fields(), option::of(0..=i64::MAX as u64), option::of(text()), option::of(time()))
        .prop_map(|(scope, parameters, version, author, valid_from)| PricingRule { scope, parameters, version, author, valid_from })
}

fn plan() -> impl Strategy<Value = Plan> {
    let interval = prop_oneof![Just("week"), Just("month"), Just("quarter"), Just("year")];
    (id(), text(), option::of(text()), (price(), currency()), interval, 0..=i64::MAX as u64, features(), option::of(time())).prop_map(
        |(plan_id, name, description, (price, currency), interval, version, features, valid_from)| Plan {
            plan_id: plan_id.into(),
            name,
            description,
            price,
            currency,
            interval: interval.into(),
            version,
            features,
            valid_from,
        },
    )
}

macro_rules! definition {
    ($type:ident, $id:ident) => {
        (id(), fields(), option::of(time())).prop_map(|($id, fields, valid_from)| $type { $id, fields, valid_from }.into_event()).boxed()
    };
}

/// Any event of an input or reference topic.
pub fn event() -> impl Strategy<Value = Event> {
    let inventory = (product_id(), -1_000_000_000..=1_000_000_000_i64, time())
        .prop_map(|(product_id, stock_level, last_updated)| Inventory { product_id, stock_level, last_updated });
    prop_oneof![
        8 => user_event().prop_map(Event::User),
        1 => inventory.prop_map(Event::Inventory),
        1 => subscription().prop_map(Event::Subscription),
        1 => command().prop_map(Event::Command),
        1 => product().prop_map(Product::into_event),
        1 => customer().prop_map(Customer::into_event),
        1 => rule().prop_map(PricingRule::into_event),
        1 => plan().prop_map(Plan::into_event),
        1 => definition!(Campaign, campaign_id),
        1 => definition!(Reward, reward_id),
        1 => definition!(Challenge, challenge_id),
        1 => definition!(Badge, badge_id),
        1 => definition!(SegmentDefinition, segment_id),
        1 => definition!(Template, template_id),
        12 => super::outputs::event(),
    ]
}
