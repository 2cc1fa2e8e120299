//! Birthday points, once a year, from a tier on.

use super::{
    Loyalty,
    ledger::{Book, Entry},
    tables::Profile,
};
use jiff::civil::Date;
use tillflow_engine_api::{Context, Result};
use tillflow_schemas::{Change, Customer, EntryKind, Timestamp, UserId};

/// Month and day of `YYYY-MM-DD` or `MM-DD`; 29 February is celebrated on the 28th in every year.
fn birthday(text: &str) -> Option<(i8, i8)> {
    let mut parts = text.rsplit('-');
    let day: i8 = parts.next()?.parse().ok()?;
    let month: i8 = parts.next()?.parse().ok()?;
    // A leap year has every day there is.
    Date::new(2024, month, day).ok()?;
    Some(if (month, day) == (2, 29) { (2, 28) } else { (month, day) })
}

impl Loyalty {
    /// What became known of a customer.
    pub(super) fn meet(&self, change: &Change<Customer>, cx: &mut Context<'_>) -> Result<()> {
        let user = UserId::from(change.id.as_str());
        let Some(customer) = &change.value else {
            cx.delete(&self.tables.profiles, &user);
            return cx.cancel_timer(self.birthday_timer, user.as_str(), "");
        };
        let profile = Profile { birthday: customer.birthday.as_deref().and_then(birthday), country: customer.country.clone() };
        if profile == Profile::default() {
            cx.delete(&self.tables.profiles, &user);
        } else {
            cx.put(&self.tables.profiles, &user, &profile)?;
        }
        cx.cancel_timer(self.birthday_timer, user.as_str(), "")?;
        let book = self.open(&user, cx)?;
        self.await_birthday(&book, cx)
    }

    /// Sets the timer for the next birthday of a user in a tier that is given points for it.
    pub(super) fn await_birthday(&self, book: &Book, cx: &mut Context<'_>) -> Result<()> {
        let tier = self.tier_name(&book.account);
        if self.rules.birthday.points == 0 || !self.rules.reaches(&tier, &self.rules.birthday.from_tier) {
            return Ok(());
        }
        if cx.timer_at(self.birthday_timer, book.user.as_str(), "")?.is_some() {
            return Ok(());
        }
        let Some((month, day)) = cx.get(&self.tables.profiles, &book.user)?.and_then(|p| p.birthday) else { return Ok(()) };
        match self.next_birthday(month, day, cx.now()) {
            Some(at) => cx.set_timer(self.birthday_timer, book.user.as_str(), "", at),
            None => Ok(()),
        }
    }

    /// The first midnight of that day, in the shop's zone, after `now`.
    fn next_birthday(&self, month: i8, day: i8, now: Timestamp) -> Option<Timestamp> {
        let year = self.local(now).year();
        [year, year + 1].into_iter().find_map(|year| {
            let midnight = Date::new(year, month, day).ok()?.to_zoned(self.zone.clone()).ok()?;
            Some(Timestamp::from_millis(midnight.timestamp().as_millisecond())).filter(|at| *at > now)
        })
    }

    /// It is the user's birthday.
    pub(super) fn celebrate(&self, user: &UserId, cx: &mut Context<'_>) -> Result<()> {
        let mut book = self.open(user, cx)?;
        let year = self.local(cx.now()).year();
        let tier = self.tier_name(&book.account);
        if self.rules.reaches(&tier, &self.rules.birthday.from_tier) && year > book.account.birthday_year {
            book.account.birthday_year = year;
            let entry = Entry::gain(format!("birthday:{year}"), EntryKind::Bonus, self.rules.birthday.points, "Happy birthday");
            self.gain(&mut book, entry, cx)?;
        }
        self.await_birthday(&book, cx)?;
        self.close(book, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_birthday_is_a_month_and_a_day_and_29_february_the_28th() {
        assert_eq!(birthday("1990-07-14"), Some((7, 14)));
        assert_eq!(birthday("07-14"), Some((7, 14)));
        assert_eq!(birthday("2000-02-29"), Some((2, 28)));
        assert_eq!(birthday("02-30"), None);
        assert_eq!(birthday("July"), None);
        assert_eq!(birthday(""), None);
    }
}
