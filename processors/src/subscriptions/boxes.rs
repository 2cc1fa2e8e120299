//! What goes into a box. Pure: candidates, a draw that anyone can repeat, and the choice from it.
//!
//! The draw: candidates are sorted by id (bytes) and shuffled by Fisher-Yates from the end: for i from the last index
//! down to 1, item i changes places with item j = ⌊r·(i + 1) / 2⁶⁴⌋, r being the next 64 bits (little-endian) of the
//! ChaCha8 key stream (counter and nonce zero) of the key SHA-256(user_id 0x00 subscription_id 0x00 n), n the period in
//! decimal digits. Ids hold no control characters, so the key's parts can't run into each other.

use super::{
    features::{has_feature, number},
    settings::BoxSettings,
};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tillflow_schemas::{Product, ProductId, SubscriptionId, Timestamp, UserId};

/// The most items a box has, whatever a plan says.
pub const LARGEST_BOX: u32 = 100;
/// Boxes kept of a customer.
pub const BOXES_KEPT: u32 = 12;
/// Products kept beyond a box's size, for those of which the stock is gone when it is asked for.
const SPARES: usize = 100;

/// What a plan promises of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Items in all.
    pub target: u32,
    /// Exclusive ones among them, at most.
    pub exclusives: u32,
    /// Whether items are chosen by what the customer likes.
    pub is_personal: bool,
    /// Whether gated products are open to the customer.
    pub has_early_access: bool,
}

impl Terms {
    /// The terms that merged features give; numbers that are absent or none have the shop's defaults.
    pub fn of(features: &BTreeMap<String, Value>, defaults: &BoxSettings) -> Self {
        let has = |feature: &str| has_feature(features.get(feature));
        let count = |feature: &str, default: u32| {
            let stated = features.get(feature).and_then(number).map(|n| n.max(0.into()).trunc().to_u32().unwrap_or(u32::MAX));
            stated.unwrap_or(default).min(LARGEST_BOX)
        };
        let target = count("target_item_count", defaults.target_item_count);
        let exclusives = if has("exclusive_item") { count("num_exclusive_items", defaults.num_exclusive_items).min(target) } else { 0 };
        Self { target, exclusives, is_personal: has("personalized_recommendations"), has_early_access: has("early_access") }
    }
}

/// A product that may go into a box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub product_id: ProductId,
    /// Whether it is for plans with `exclusive_item` only.
    pub is_exclusive: bool,
}

/// The products that may go into a box at `at`, by id: box_eligible, in stock, open to the customer, not excluded.
pub fn candidates<'a>(
    products: impl Iterator<Item = (&'a str, &'a Arc<Product>)>,
    is_in_stock: impl Fn(&str) -> bool,
    excluded: &BTreeSet<ProductId>,
    has_early_access: bool,
    at: Timestamp,
) -> Vec<Candidate> {
    let mut candidates: Vec<_> = products
        .filter(|(id, product)| {
            product.box_eligible
                && (has_early_access || product.early_access_until.is_none_or(|until| until <= at))
                && !excluded.contains(*id)
                && is_in_stock(id)
        })
        .map(|(id, product)| Candidate { product_id: id.into(), is_exclusive: product.exclusive })
        .collect();
    candidates.sort_by(|a, b| a.product_id.cmp(&b.product_id));
    candidates
}

/// The key of a box's draw.
pub fn seed(user: &UserId, subscription: &SubscriptionId, period: u32) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(user.as_str());
    hash.update([0]);
    hash.update(subscription.as_str());
    hash.update([0]);
    hash.update(period.to_string());
    hash.finalize().into()
}

/// Shuffles as the module says.
pub fn shuffle<T>(items: &mut [T], seed: [u8; 32]) {
    let mut stream = ChaCha8Rng::from_seed(seed);
    for i in (1..items.len()).rev() {
        let j = (u128::from(stream.next_u64()) * (i as u128 + 1)) >> 64;
        items.swap(i, j as usize);
    }
}

/// A box drawn: its products in the order in which they are taken, and those that the stock did not give.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Draw {
    /// Items in all.
    pub target: u32,
    /// Exclusive ones among them, at most.
    pub most_exclusives: u32,
    /// Exclusive products, first choice first.
    pub exclusives: Vec<ProductId>,
    /// The others, first choice first.
    pub standard: Vec<ProductId>,
    /// Refused by the owner of the stock.
    pub refused: BTreeSet<ProductId>,
}

impl Draw {
    /// Draws from candidates sorted by id. A personal box takes what has the higher score first, else (and among
    /// equals) the shuffle decides.
    pub fn new(mut candidates: Vec<Candidate>, terms: Terms, seed: [u8; 32], score: impl Fn(&ProductId) -> f64) -> Self {
        shuffle(&mut candidates, seed);
        let (exclusives, standard): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|c| c.is_exclusive);
        let order = |group: Vec<Candidate>, taken: u32| {
            let mut ids: Vec<_> = group.into_iter().map(|c| c.product_id).collect();
            if terms.is_personal {
                ids.sort_by(|a, b| score(b).total_cmp(&score(a)));
            }
            ids.truncate(taken as usize + SPARES);
            ids
        };
        Self {
            target: terms.target,
            most_exclusives: terms.exclusives,
            exclusives: if terms.exclusives == 0 { Vec::new() } else { order(exclusives, terms.exclusives) },
            standard: order(standard, terms.target),
            refused: BTreeSet::new(),
        }
    }

    /// The customer wants `to` instead of `from`: within their group the two change places. Whether both are there.
    pub fn swap(&mut self, from: &ProductId, to: &ProductId) -> bool {
        for group in [&mut self.exclusives, &mut self.standard] {
            let place = |id: &ProductId| group.iter().position(|p| p == id);
            if let (Some(a), Some(b)) = (place(from), place(to)) {
                group.swap(a, b);
                return true;
            }
        }
        false
    }

    /// The box as it stands: exclusives first, then standard ones to the target. What was refused is replaced by the
    /// next of its group, and a missing exclusive by a standard one; so a product once chosen stays chosen unless
    /// refused.
    pub fn chosen(&self) -> Vec<Candidate> {
        let of = |ids: &[ProductId], count: u32, is_exclusive: bool| -> Vec<_> {
            let open = ids.iter().filter(|id| !self.refused.contains(*id)).take(count as usize);
            open.map(|id| Candidate { product_id: id.clone(), is_exclusive }).collect()
        };
        let mut chosen = of(&self.exclusives, self.most_exclusives, true);
        let left = self.target.saturating_sub(u32::try_from(chosen.len()).unwrap_or(u32::MAX));
        chosen.extend(of(&self.standard, left, false));
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscriptions::plans::built_in;
    use proptest::prelude::*;

    fn pool(exclusives: usize, standard: usize) -> Vec<Candidate> {
        let some = |prefix: &'static str, n, is_exclusive| {
            (0..n).map(move |i| Candidate { product_id: format!("{prefix}{i:02}").into(), is_exclusive })
        };
        some("e", exclusives, true).chain(some("s", standard, false)).collect()
    }

    fn terms(plan: usize) -> Terms {
        Terms::of(&built_in()[plan].features, &BoxSettings::default())
    }

    fn ids(chosen: &[Candidate]) -> Vec<&str> {
        chosen.iter().map(|c| c.product_id.as_str()).collect()
    }

    /// From a ChaCha8 and a SHA-256 written down independently of this program.
    #[test]
    fn the_shuffle_is_the_one_that_anyone_computes_from_the_description() {
        let shuffled = |n: usize, user: &str, subscription: &str, period| {
            let mut items: Vec<_> = (0..n).collect();
            shuffle(&mut items, seed(&user.into(), &subscription.into(), period));
            items
        };
        let hex: String = seed(&"u1".into(), &"s1".into(), 0).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "49266598224a616452ffd6b844f0ae830dead77567341f415b72e44131ba2008");
        assert_eq!(shuffled(10, "u1", "s1", 0), [5, 9, 0, 6, 2, 4, 3, 1, 7, 8]);
        assert_eq!(shuffled(10, "u1", "s1", 1), [3, 5, 8, 4, 9, 7, 6, 0, 2, 1]);
        assert_eq!(
            shuffled(40, "anna", "premium-7", 12),
            [
                35, 14, 19, 26, 25, 33, 1, 24, 32, 16, 31, 0, 10, 9, 11, 36, 2, 22, 34, 21, 13, 29, 15, 18, 23, 37, 3, 30, 12, 7, 20, 8, 5,
                6, 38, 4, 39, 28, 27, 17
            ]
        );
    }

    #[test]
    fn the_plans_promise_their_numbers_of_items() {
        let of = |t: Terms| (t.target, t.exclusives, t.is_personal, t.has_early_access);
        assert_eq!(of(terms(0)), (4, 0, false, false));
        assert_eq!(of(terms(1)), (6, 1, false, true));
        assert_eq!(of(terms(2)), (8, 3, true, true));
        let own = |features: Value| of(Terms::of(&serde_json::from_value(features).unwrap(), &BoxSettings::default()));
        assert_eq!(own(serde_json::json!({"x": 1})), (5, 0, false, false), "absent: five items");
        assert_eq!(own(serde_json::json!({"exclusive_item": true})), (5, 1, false, false), "absent: one exclusive");
        assert_eq!(
            own(serde_json::json!({"exclusive_item": true, "num_exclusive_items": 9, "target_item_count": "2"})),
            (2, 2, false, false)
        );
        assert_eq!(own(serde_json::json!({"target_item_count": "1e9"})), (100, 0, false, false));
        assert_eq!(own(serde_json::json!({"target_item_count": "-3"})), (0, 0, false, false));
    }

    #[test]
    fn exclusives_come_first_and_only_where_the_plan_has_them() {
        let draw = |plan| Draw::new(pool(5, 20), terms(plan), [7; 32], |_| 0.0).chosen();
        let exclusives = |chosen: &[Candidate]| chosen.iter().map(|c| c.is_exclusive).collect::<Vec<_>>();
        assert_eq!(exclusives(&draw(0)), [false; 4]);
        assert_eq!(exclusives(&draw(1)), [true, false, false, false, false, false]);
        assert_eq!(exclusives(&draw(2)), [true, true, true, false, false, false, false, false]);
    }

    #[test]
    fn a_personal_box_takes_what_the_customer_likes_and_leaves_the_rest_as_shuffled() {
        let liked = |id: &ProductId| if id.as_str() == "s07" || id.as_str() == "e04" { 0.5 } else { 0.0 };
        let plain = Draw::new(pool(5, 20), Terms { is_personal: false, ..terms(2) }, [7; 32], liked);
        let personal = Draw::new(pool(5, 20), terms(2), [7; 32], liked);
        assert_eq!((personal.exclusives[0].as_str(), personal.standard[0].as_str()), ("e04", "s07"));
        let rest = |d: &Draw| d.standard.iter().filter(|p| p.as_str() != "s07").cloned().collect::<Vec<_>>();
        assert_eq!(rest(&personal), rest(&plain));
    }

    #[test]
    fn too_few_exclusives_are_made_up_by_standard_ones_and_a_short_catalogue_gives_what_there_is() {
        assert_eq!(Draw::new(pool(1, 20), terms(2), [7; 32], |_| 0.0).chosen().len(), 8);
        assert_eq!(Draw::new(pool(2, 3), terms(2), [7; 32], |_| 0.0).chosen().len(), 5);
        assert_eq!(Draw::new(pool(9, 1), terms(1), [7; 32], |_| 0.0).chosen().len(), 2, "one exclusive at most");
        assert!(Draw::new(vec![], terms(1), [7; 32], |_| 0.0).chosen().is_empty());
    }

    #[test]
    fn what_the_customer_swaps_changes_places_within_its_group() {
        let mut draw = Draw::new(pool(5, 20), terms(1), [7; 32], |_| 0.0);
        let chosen = draw.chosen();
        let (out, wanted) = (chosen[2].product_id.clone(), draw.standard[9].clone());
        assert!(draw.swap(&out, &wanted));
        assert!(ids(&draw.chosen()).contains(&wanted.as_str()) && !ids(&draw.chosen()).contains(&out.as_str()));
        assert!(!draw.swap(&wanted, &"e01".into()), "an exclusive one is no substitute for a standard one");
    }

    #[test]
    fn gated_excluded_ineligible_and_absent_products_are_no_candidates() {
        let at = Timestamp::from_millis(1_000);
        let product = |id: &str, box_eligible, gate: Option<i64>| {
            let gate = gate.map(Timestamp::from_millis);
            Arc::new(Product { product_id: id.into(), box_eligible, early_access_until: gate, ..Product::default() })
        };
        let shelf = [
            product("open", true, Some(1_000)),
            product("gated", true, Some(1_001)),
            product("loose", false, None),
            product("sold", true, None),
            product("had", true, None),
        ];
        let list = |early| {
            let products = shelf.iter().map(|p| (p.product_id.as_str(), p));
            let found = candidates(products, |id| id != "sold", &["had".into()].into(), early, at);
            found.into_iter().map(|c| c.product_id.into_string()).collect::<Vec<_>>()
        };
        assert_eq!(list(false), ["open"]);
        assert_eq!(list(true), ["gated", "open"]);
    }

    proptest! {
        #[test]
        fn a_box_never_exceeds_its_terms_repeats_nothing_and_keeps_what_was_not_refused(
            exclusives in 0_usize..8, standard in 0_usize..20, plan in 0_usize..3, key: [u8; 32], refusals in prop::collection::vec(0_usize..8, 0..12),
        ) {
            let mut draw = Draw::new(pool(exclusives, standard), terms(plan), key, |_| 0.0);
            let possible = exclusives.min(terms(plan).exclusives as usize);
            prop_assert_eq!(draw.chosen().len(), (possible + standard).min(terms(plan).target as usize));
            for refusal in refusals {
                let before = draw.chosen();
                let distinct: BTreeSet<_> = ids(&before).into_iter().collect();
                prop_assert_eq!(distinct.len(), before.len());
                prop_assert!(before.iter().filter(|c| c.is_exclusive).count() <= terms(plan).exclusives as usize);
                let Some(refused) = before.get(refusal) else { continue };
                draw.refused.insert(refused.product_id.clone());
                let after = draw.chosen();
                prop_assert!(before.iter().filter(|c| *c != refused).all(|c| after.contains(c)));
            }
        }

        #[test]
        fn the_draw_depends_on_who_which_and_when(user in "[a-z]{1,4}", subscription in "[a-z]{1,4}", n in 0_u32..1000) {
            let key = seed(&user.as_str().into(), &subscription.as_str().into(), n);
            prop_assert_ne!(key, seed(&user.as_str().into(), &subscription.as_str().into(), n + 1));
            prop_assert_ne!(key, seed(&format!("{user}{subscription}").into(), &"".into(), n));
        }
    }
}
