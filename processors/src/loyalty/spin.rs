//! Spins: a prize drawn with each order, fixed before anyone spins.
//!
//! The draw is `HMAC-SHA-256(secret, user 0x00 spin_id)`. Its SHA-256, the commitment, is published when the spin is
//! granted, the draw itself (the proof) with the result: so a shopper can check that the prize was fixed before.

use super::{
    Loyalty,
    ledger::{Book, Entry, command_entry},
    messages::Scarce,
    settings::Prize,
    tables::Request,
};
use hmac::{Hmac, Mac};
use serde_json::json;
use sha2::{Digest, Sha256};
use tillflow_engine_api::{Context, Result};
use tillflow_schemas::{EntryKind, OrderId, UserId};

/// The draw of one spin.
fn draw(secret: &str, user: &UserId, spin_id: &str) -> [u8; 32] {
    // HMAC takes keys of any length, so there is no error to come.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return [0; 32] };
    mac.update(user.as_str().as_bytes());
    mac.update(&[0]);
    mac.update(spin_id.as_bytes());
    mac.finalize().into_bytes().into()
}

/// The prize that a draw wins: its first eight bytes as a big-endian number, modulo the sum of the weights, counted
/// off over the prizes in their order.
fn prize<'p>(draw: &[u8; 32], prizes: &'p [Prize]) -> Option<&'p Prize> {
    let weights: u64 = prizes.iter().map(|p| u64::from(p.weight)).sum();
    let number = draw.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let mut left = number.checked_rem(weights)?;
    prizes.iter().find(|p| {
        let weight = u64::from(p.weight);
        let won = left < weight;
        left = left.saturating_sub(weight);
        won
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The id of an order's n-th spin, from 1.
fn spin_id(order_id: &OrderId, number: u32) -> String {
    format!("spin:{number}:{order_id}")
}

fn parse_spin_id(id: &str) -> Option<(OrderId, u32)> {
    let (number, order_id) = id.strip_prefix("spin:")?.split_once(':')?;
    Some((order_id.into(), number.parse().ok()?))
}

impl Loyalty {
    /// Grants the spins of an order and publishes their commitments; returns how many.
    pub(super) fn grant_spins(&self, book: &Book, order_id: &OrderId, cx: &mut Context<'_>) -> Result<u32> {
        if self.rules.spin.per_order == 0 || self.lives_in(&book.user, &self.rules.spin.off_countries, cx)? {
            return Ok(0);
        }
        for number in 1..=self.rules.spin.per_order {
            let spin_id = spin_id(order_id, number);
            let commitment = hex(&Sha256::digest(draw(&self.rules.secret, &book.user, &spin_id)));
            let data = json!({"spin_id": spin_id, "commitment": commitment, "order_id": order_id});
            self.notify(book, "spin_granted", "You may spin the wheel".into(), data, cx)?;
        }
        Ok(self.rules.spin.per_order)
    }

    /// Spins. Where a month's prizes are limited, they are asked for first. Returns why not.
    pub(super) fn spin(&self, book: &mut Book, command_id: &str, spin_id: &str, cx: &mut Context<'_>) -> Result<Option<String>> {
        let unknown = || format!("{spin_id} was not granted to this user");
        let Some((order_id, number)) = parse_spin_id(spin_id) else { return Ok(Some(unknown())) };
        let key = (book.user.clone(), order_id.clone());
        let Some(mut order) = cx.get(&self.tables.orders, &key)?.filter(|o| (1..=o.spins).contains(&number)) else {
            return Ok(Some(unknown()));
        };
        let bit = 1_u64 << (number - 1);
        if order.spun & bit != 0 {
            return Ok(Some(format!("{spin_id} was used before")));
        }
        if self.lives_in(&book.user, &self.rules.spin.off_countries, cx)? {
            return Ok(Some("there are no spins in this user's country".into()));
        }
        order.spun |= bit;
        cx.put(&self.tables.orders, &key, &order)?;
        let points = prize(&draw(&self.rules.secret, &book.user, spin_id), &self.rules.spin.prizes).map_or(0, |p| p.points);
        if self.rules.spin.monthly_budget.is_none() || points == 0 {
            self.win(book, command_id, spin_id, cx)?;
            return Ok(None);
        }
        let request = Request::Spin { spin_id: spin_id.into(), order_id, number };
        cx.put(&self.tables.requests, &(book.user.clone(), command_id.into()), &request)?;
        self.ask(Scarce::SpinPrizes(self.month(cx.now())), points, &book.user, command_id, cx)?;
        Ok(None)
    }

    /// The owner of the month's prizes has answered; where nothing is left of them the spin can be used later.
    #[allow(clippy::too_many_arguments, reason = "each is one field of the request")]
    pub(super) fn spin_granted(
        &self,
        book: &mut Book,
        command_id: &str,
        spin_id: &str,
        order_id: &OrderId,
        number: u32,
        granted: bool,
        cx: &mut Context<'_>,
    ) -> Result<()> {
        if granted {
            return self.win(book, command_id, spin_id, cx);
        }
        let key = (book.user.clone(), order_id.clone());
        if let Some(mut order) = cx.get(&self.tables.orders, &key)? {
            order.spun &= !(1 << (number - 1));
            cx.put(&self.tables.orders, &key, &order)?;
        }
        self.write(book, Entry::rejected(command_id, "all prizes of this month are won; the spin can be used later"), cx)
    }

    fn win(&self, book: &mut Book, command_id: &str, spin_id: &str, cx: &mut Context<'_>) -> Result<()> {
        let draw = draw(&self.rules.secret, &book.user, spin_id);
        let Some(prize) = prize(&draw, &self.rules.spin.prizes) else {
            return self.write(book, Entry::rejected(command_id, "there are no prizes"), cx);
        };
        let won = match &prize.code {
            Some(code) if prize.points == 0 => format!("code {code}"),
            Some(code) => format!("{} points and code {code}", prize.points),
            None => format!("{} points", prize.points),
        };
        let entry = Entry::gain(command_entry(command_id), EntryKind::Bonus, prize.points, format!("{spin_id}: {won}"));
        self.gain(book, entry.answers(command_id), cx)?;
        let data = json!({"spin_id": spin_id, "points": prize.points, "code": prize.code, "proof": hex(&draw)});
        self.notify(book, "spin_result", format!("You won {won}"), data, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loyalty::LoyaltySettings;

    #[test]
    fn the_prizes_come_as_often_as_their_weights_say() {
        let prizes = LoyaltySettings::default().spin.prizes;
        let user = UserId::from("u");
        let mut won = std::collections::BTreeMap::new();
        for i in 0..10_000 {
            let points = prize(&draw("secret", &user, &format!("spin:1:{i}")), &prizes).unwrap().points;
            *won.entry(points).or_insert(0) += 1;
        }
        assert!((7_800..8_200).contains(&won[&10]), "{won:?}");
        assert!((1_650..1_950).contains(&won[&25]), "{won:?}");
        assert!((130..270).contains(&won[&100]), "{won:?}");
    }

    #[test]
    fn a_draw_counts_the_weights_off_in_their_order() {
        let prizes = LoyaltySettings::default().spin.prizes;
        let won = |number: u64| {
            let mut draw = [0; 32];
            draw[..8].copy_from_slice(&number.to_be_bytes());
            prize(&draw, &prizes).unwrap().points
        };
        assert_eq!([0, 79, 80, 97, 98, 99, 100].map(won), [10, 10, 25, 25, 100, 100, 10]);
        assert_eq!(prize(&[0; 32], &[]), None);
    }

    #[test]
    fn another_user_spin_or_secret_is_another_draw() {
        let of = |secret: &str, user: &str, spin: &str| draw(secret, &user.into(), spin);
        assert_eq!(of("s", "u", "spin:1:o"), of("s", "u", "spin:1:o"));
        assert_ne!(of("s", "u", "spin:1:o"), of("t", "u", "spin:1:o"));
        assert_ne!(of("s", "u", "spin:1:o"), of("s", "v", "spin:1:o"));
        assert_eq!(parse_spin_id(&spin_id(&"a:b".into(), 2)), Some(("a:b".into(), 2)));
    }
}
