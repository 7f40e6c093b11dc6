//! Times for people, in UTC: the one zone every machine knows without a database.

/// `10:42:07` today, else `2026-11-21 10:42:07`.
pub(crate) fn clock(at_ms: u64, now_ms: u64) -> String {
    let seconds = at_ms / 1_000;
    let time = format!("{:02}:{:02}:{:02}", seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let day = seconds / DAY;
    if day == now_ms / 1_000 / DAY { time } else { format!("{} {time}", date(day)) }
}

/// `10:42:07.123` today, else `2026-11-21 10:42:07.123`: where an order within a second matters.
pub(crate) fn moment(at_ms: u64, now_ms: u64) -> String {
    format!("{}.{:03}", clock(at_ms, now_ms), at_ms % 1_000)
}

/// `2026-11-21 10:42:07 UTC`.
pub(crate) fn stamp(at_ms: u64) -> String {
    let seconds = at_ms / 1_000;
    let day = date(seconds / DAY);
    format!("{day} {:02}:{:02}:{:02} UTC", seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60)
}

/// The largest unit that fits, and one more where it says something: `45 s`, `3 min`, `24 h`, `7 d`.
pub(crate) fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{} s", ms / 1_000),
        60_000..3_600_000 => format!("{} min", ms / 60_000),
        3_600_000..172_800_000 => format!("{} h", ms / 3_600_000),
        172_800_000.. => format!("{} d", ms / 86_400_000),
    }
}

/// `11.3 ms`.
pub(crate) fn round_trip(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.1} ms") }
}

/// Days since 1970 as a date of the proleptic Gregorian calendar (Howard Hinnant, `civil_from_days`).
fn date(days: u64) -> String {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

const DAY: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn today_shows_the_time_and_another_day_its_date() {
        let at = 1_800_000_000_000;
        assert_eq!(clock(at, at + 1_000), "08:00:00");
        assert_eq!(clock(at, at + 86_400_000), "2027-01-15 08:00:00");
        assert_eq!(moment(at + 7, at + 1_000), "08:00:00.007");
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(11_016), "2000-02-29");
        assert_eq!(date(11_017), "2000-03-01");
        assert_eq!(date(20_778), "2026-11-21");
    }

    #[test]
    fn spans_use_the_largest_unit_that_fits() {
        let shown: Vec<String> = [41, 1_500, 180_000, 86_400_000, 604_800_000].map(span).into();
        assert_eq!(shown, ["41 ms", "1 s", "3 min", "24 h", "7 d"]);
    }
}
