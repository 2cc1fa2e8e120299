//! Any record of what Tillflow writes, to others and to itself.

use super::records::*;
use crate::*;
use proptest::{collection::vec, option, prelude::*};

fn points() -> impl Strategy<Value = i64> {
    any::<i64>()
}

fn count() -> impl Strategy<Value = u64> {
    0..=i64::MAX as u64
}

fn price_change() -> impl Strategy<Value = PriceChange> {
    let prices = (rounded(), rounded(), option::of("[A-Z]{3}"));
    let mode = prop_oneof![Just(Mode::Live), Just(Mode::Shadow)];
    (product_id(), prices, text(), number(), option::of(any::<i64>()), text(), vec(text(), 0..3), mode, time()).prop_map(
        |(product_id, (old_price, new_price, currency), reason, demand_score, stock_level, rule, bounded_by, mode, decided_at)| {
            PriceChange {
                product_id,
                old_price,
                new_price,
                currency,
                reason,
                demand_score,
                stock_level,
                rule,
                bounded_by,
                mode,
                decided_at,
            }
        },
    )
}

fn loyalty_update() -> impl Strategy<Value = LoyaltyUpdate> {
    use EntryKind::*;
    let kind = prop::sample::select(vec![Earn, Bonus, Pending, Release, Redeem, Reversal, Expire, Refund, Adjust, Rejected]);
    let sums = (points(), points(), points(), points());
    (id(), user_id(), kind, sums, text(), option::of(id()), option::of(id()), text(), time()).prop_map(
        |(entry_id, user_id, kind, (points, lifetime_change, balance, lifetime_points), tier, order_id, command_id, note, at)| {
            LoyaltyUpdate {
                entry_id,
                user_id,
                kind,
                points,
                lifetime_change,
                balance,
                lifetime_points,
                tier,
                order_id: order_id.map(OrderId::from),
                command_id,
                note,
                at,
            }
        },
    )
}

fn to_users() -> BoxedStrategy<Event> {
    let item = (product_id(), number(), vec(product_id(), 0..3));
    let item = item.prop_map(|(product_id, score, because)| RecommendedItem { product_id, score, because });
    let recommendations = (user_id(), vec(item, 0..4), text(), time())
        .prop_map(|(user_id, items, trigger, generated_at)| Recommendations { user_id, items, trigger, generated_at }.into_event());
    let notification = (user_id(), text(), text(), object(), time())
        .prop_map(|(user_id, kind, title, data, at)| Notification { user_id, kind, title, data, at }.into_event());
    let entitlements = (user_id(), option::of(id()), text(), features(), time(), option::of(time())).prop_map(
        |(user_id, plan_id, status, features, since, until)| {
            Entitlements { user_id, plan_id: plan_id.map(PlanId::from), status, features, since, until }.into_event()
        },
    );
    let item =
        (product_id(), any::<bool>(), text()).prop_map(|(product_id, exclusive, because)| BoxItem { product_id, exclusive, because });
    let box_contents = (id(), user_id(), any::<u32>(), vec(item, 0..4), time())
        .prop_map(|(box_id, user_id, period, items, at)| BoxContents { box_id, user_id, period, items, at }.into_event());
    let names = || vec(text(), 0..3);
    let segments = (user_id(), names(), names(), names(), time())
        .prop_map(|(user_id, segments, entered, left, at)| Segments { user_id, segments, entered, left, at }.into_event());
    let texts = (id(), user_id(), id(), text(), text());
    let trigger =
        (texts, object(), text(), time()).prop_map(|((trigger_id, user_id, campaign, template, to), data, because, send_after)| {
            EmailTrigger { trigger_id, user_id, campaign_id: campaign.into(), template, to, data, because, send_after }.into_event()
        });
    let result =
        (id(), user_id(), text(), option::of(text()), text(), time()).prop_map(|(trigger_id, user_id, status, provider_id, detail, at)| {
            EmailResult { trigger_id, user_id, status, provider_id, detail, at }.into_event()
        });
    prop_oneof![
        loyalty_update().prop_map(LoyaltyUpdate::into_event),
        recommendations,
        notification,
        entitlements,
        box_contents,
        segments,
        trigger,
        result
    ]
    .boxed()
}

fn of_products() -> BoxedStrategy<Event> {
    let price = (product_id(), rounded(), option::of("[A-Z]{3}"), time())
        .prop_map(|(product_id, price, currency, since)| ProductPrice { product_id, price, currency, since }.into_event());
    let related = (product_id(), number(), count()).prop_map(|(product_id, score, count)| Related { product_id, score, count });
    let related = (product_id(), vec(related, 0..4)).prop_map(|(product_id, related)| RelatedProducts { product_id, related }.into_event());
    let status = (product_id(), option::of(points()), option::of(rounded()), time())
        .prop_map(|(product_id, stock_level, price, at)| ProductStatus { product_id, stock_level, price, at }.into_event());
    prop_oneof![price_change().prop_map(PriceChange::into_event), price, related, status].boxed()
}

fn internal() -> BoxedStrategy<Event> {
    let counts = (points(), points(), points(), points(), points(), points());
    let demand = (product_id(), time(), counts).prop_map(|(product_id, bucket, (views, long_views, adds, checkouts, orders, units))| {
        DemandSignal { product_id, bucket, views, long_views, adds, checkouts, orders, units }.into_event()
    });
    let pair = (product_id(), time(), count(), count(), time(), count(), count()).prop_map(
        |(other, bucket, weight, count, at, other_total, sample_total)| ItemPair {
            other,
            bucket,
            weight,
            count,
            at,
            other_total,
            sample_total,
        },
    );
    let pairs = (product_id(), any::<u32>(), vec(pair, 0..4))
        .prop_map(|(product_id, source, pairs)| ItemPairs { product_id, source, pairs }.into_event());
    let command = (product_id(), id(), time(), text(), option::of(user_id()), object()).prop_map(
        |(product_id, request_id, at, action, user_id, data)| {
            ProductCommand { product_id, request_id, at, action, user_id, data }.into_event()
        },
    );
    let signal = (user_id(), id(), time(), text(), object())
        .prop_map(|(user_id, signal_id, at, kind, data)| CustomerSignal { user_id, signal_id, at, kind, data }.into_event());
    let fact = (id(), id(), time(), text(), object())
        .prop_map(|(scope, fact_id, at, kind, data)| ShopFact { scope, fact_id, at, kind, data }.into_event());
    let mark = time().prop_map(|at| ClockMark { at }.into_event());
    let fate = (id(), text(), time()).prop_map(|(id, status, at)| DeadLetterStatus { id, status, at }.into_event());
    let erased = (user_id(), time()).prop_map(|(user_id, erased_at)| ErasedUser { user_id, erased_at }.into_event());
    let owner = (id(), id(), option::of(text()), option::of(text()))
        .prop_map(|(task, instance, address, life)| TaskOwner { task, instance, address, life }.into_event());
    prop_oneof![demand, pairs, command, signal, fact, mark, fate, erased, owner].boxed()
}

/// Any event of an output or internal topic.
pub fn event() -> impl Strategy<Value = Event> {
    prop_oneof![to_users(), of_products(), internal()]
}
