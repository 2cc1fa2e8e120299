//! Stock for boxes, keyed by product: who owns a product grants or refuses pieces of it, one request at a time, so
//! that two boxes never get the last piece.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tillflow_engine_api::{Context, Declare, Error, Output, Processor, Result};
use tillflow_schemas::{CustomerSignal, Event, Inventory, ProductCommand, ProductId, Timestamp, UserId};
use tillflow_state::Table;

/// What a [`ProductCommand`] asks for here.
const RESERVE: &str = "reserve";
/// The answers, as kinds of [`CustomerSignal`].
pub(super) const RESERVED: &str = "reserved";
/// See [`RESERVED`].
pub(super) const REFUSED: &str = "refused";

/// What is left of a product.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Level {
    /// As last counted.
    counted: i64,
    /// When it was counted.
    at: Timestamp,
    /// Granted since: a grant lowers what is left until the next count.
    granted: i64,
}

/// Grants pieces of products to boxes. Runs in the products group.
pub struct BoxStock {
    levels: Table<ProductId, Level>,
    answers: Output<CustomerSignal>,
}

/// The request for one piece of `product` for a box.
pub(super) fn request(user: &UserId, box_id: &str, product: &ProductId, at: Timestamp) -> ProductCommand {
    ProductCommand {
        product_id: product.clone(),
        // Requests are recognised by product; boxes of two customers may have one id.
        request_id: format!("box/{user}/{box_id}"),
        at,
        action: RESERVE.into(),
        user_id: Some(user.clone()),
        data: Map::from_iter([("box_id".into(), box_id.into()), ("quantity".into(), 1.into())]),
    }
}

impl Processor for BoxStock {
    fn declare(d: &mut Declare<'_>) -> Self {
        d.input::<Inventory>();
        d.input::<ProductCommand>();
        Self { levels: d.store("subscriptions.box_stock"), answers: d.output() }
    }

    fn process(&mut self, event: &Event, cx: &mut Context<'_>) -> Result<()> {
        match event {
            Event::Inventory(count) => self.count(count, cx),
            // Only what has a box in it: others may ask other things of a product's owner.
            Event::ProductCommand(command) if command.action == RESERVE && command.data.contains_key("box_id") => self.answer(command, cx),
            _ => Ok(()),
        }
    }
}

impl BoxStock {
    fn count(&self, count: &Inventory, cx: &mut Context<'_>) -> Result<()> {
        if cx.get(&self.levels, &count.product_id)?.is_some_and(|level| level.at > count.last_updated) {
            return Ok(());
        }
        cx.put(&self.levels, &count.product_id, &Level { counted: count.stock_level, at: count.last_updated, granted: 0 })
    }

    fn answer(&self, command: &ProductCommand, cx: &mut Context<'_>) -> Result<()> {
        let user_id = command.user_id.clone().ok_or_else(|| Error::reject("user_id is missing: nobody to answer"))?;
        let quantity = command.data.get("quantity").map_or(Some(1), Value::as_i64).filter(|quantity| *quantity > 0);
        let quantity = quantity.ok_or_else(|| Error::reject("quantity is not a number above 0"))?;
        let mut level = cx.get(&self.levels, &command.product_id)?.unwrap_or_default();
        let left = level.counted.saturating_sub(level.granted);
        let is_granted = left >= quantity;
        if is_granted {
            level.granted += quantity;
            cx.put(&self.levels, &command.product_id, &level)?;
        }
        let mut data = command.data.clone();
        data.insert("product_id".into(), json!(command.product_id));
        let signal = CustomerSignal {
            user_id,
            signal_id: format!("{}/{}", command.request_id, command.product_id),
            at: command.at,
            kind: if is_granted { RESERVED } else { REFUSED }.into(),
            data,
        };
        cx.emit(&self.answers, signal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tillflow_engine_api::testing::Driver;

    fn count(shop: &mut Driver, level: i64, hour: u32) {
        shop.send_json(
            "inventory",
            json!({"product_id": "p", "stock_level": level, "last_updated": format!("2026-03-01T{hour:02}:00:00Z")}),
        );
    }

    fn ask(shop: &mut Driver, box_id: &str) -> Vec<String> {
        let at = Timestamp::parse("2026-03-01T12:00:00Z").unwrap();
        shop.send(Event::ProductCommand(request(&"u".into(), box_id, &"p".into(), at)));
        shop.emitted::<CustomerSignal>().into_iter().map(|s| s.kind).collect()
    }

    #[test]
    fn a_grant_lowers_what_is_left_until_the_next_inventory_record() {
        let mut shop = Driver::of::<BoxStock>();
        assert_eq!(ask(&mut shop, "b0"), [REFUSED], "a product nobody counted");
        count(&mut shop, 2, 1);
        assert_eq!(ask(&mut shop, "b1"), [RESERVED]);
        assert_eq!(ask(&mut shop, "b2"), [RESERVED]);
        assert_eq!(ask(&mut shop, "b3"), [REFUSED]);
        count(&mut shop, 9, 0);
        assert_eq!(ask(&mut shop, "b4"), [REFUSED], "a count older than the newest is ignored");
        count(&mut shop, 1, 2);
        assert_eq!(ask(&mut shop, "b5"), [RESERVED]);
        assert_eq!(ask(&mut shop, "b5"), Vec::<String>::new(), "the same request is answered once");
        assert!(shop.failures.is_empty());
    }

    #[test]
    fn an_answer_says_what_it_answers_and_other_commands_are_left_to_others() {
        let mut shop = Driver::of::<BoxStock>();
        count(&mut shop, 2, 1);
        let at = Timestamp::parse("2026-03-01T12:00:00Z").unwrap();
        let ours = request(&"u".into(), "s:3", &"p".into(), at);
        shop.send(Event::ProductCommand(ProductCommand { action: "run".into(), request_id: "r".into(), ..ours.clone() }));
        shop.send(Event::ProductCommand(ours));
        let [answer] = shop.emitted::<CustomerSignal>().try_into().unwrap();
        assert_eq!(serde_json::to_value(&answer.data).unwrap(), json!({"box_id": "s:3", "quantity": 1, "product_id": "p"}));
        assert_eq!((answer.user_id.as_str(), answer.at), ("u", at));
    }

    proptest! {
        #[test]
        fn never_more_pieces_are_granted_than_were_counted(steps in prop::collection::vec(prop::option::weighted(0.2, -2_i64..5), 1..40)) {
            let mut shop = Driver::of::<BoxStock>();
            let (mut left, mut hour) = (0, 0);
            for (i, step) in steps.into_iter().enumerate() {
                match step {
                    Some(level) => {
                        count(&mut shop, level, hour % 24);
                        if hour < 24 { left = level; }
                        hour += 1;
                    }
                    None => {
                        let is_granted = ask(&mut shop, &format!("b{i}")) == [RESERVED];
                        prop_assert_eq!(is_granted, left > 0);
                        left -= i64::from(is_granted);
                    }
                }
            }
        }
    }
}
