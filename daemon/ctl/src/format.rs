//! Values as people read them: times in their zone, durations and sizes in fitting units; and times as people write them.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// What stands for nothing.
pub(crate) const NOTHING: &str = "-";

/// A field as text: strings bare, numbers as they are, nothing as a dash.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => NOTHING.into(),
        Value::String(text) if text.is_empty() => NOTHING.into(),
        Value::String(text) => text.clone(),
        Value::Array(entries) => {
            let entries: Vec<String> = entries.iter().map(self::text).collect();
            if entries.is_empty() { NOTHING.into() } else { entries.join(", ") }
        }
        other => other.to_string(),
    }
}

/// An RFC 3339 time, or milliseconds of the Unix epoch, in the given zone to the second; what is neither stays as it is.
pub(crate) fn time(value: &Value, zone: &TimeZone) -> String {
    let timestamp = match value {
        Value::String(text) => text.parse::<Timestamp>().ok(),
        Value::Number(number) => number.as_i64().and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        _ => None,
    };
    timestamp.map_or_else(|| text(value), |at| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// A duration in milliseconds as `850 ms`, `42 s`, `3:07` or `1:02:03`.
pub(crate) fn duration(value: &Value) -> String {
    let Some(milliseconds) = value.as_u64() else { return text(value) };
    let seconds = milliseconds / 1000;
    match seconds {
        0 => format!("{milliseconds} ms"),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

/// A size in bytes with three significant digits.
pub(crate) fn size(value: &Value) -> String {
    let Some(bytes) = value.as_u64() else { return text(value) };
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = bytes as f64;
    let mut unit = 0;
    // 999.5 would be shown as 1000.
    while scaled >= 999.5 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    match (unit, scaled) {
        (0, _) => format!("{bytes} B"),
        (_, ..9.995) => format!("{scaled:.2} {}", UNITS[unit]),
        (_, ..99.95) => format!("{scaled:.1} {}", UNITS[unit]),
        _ => format!("{scaled:.0} {}", UNITS[unit]),
    }
}

/// A time as operators write it, as RFC 3339 in UTC: a date or a time of day in their zone, RFC 3339, or "2h" ago.
pub(crate) fn parse_time(text: &str, zone: &TimeZone, now: Timestamp) -> Result<String, String> {
    let wrong = || {
        format!(
            "\"{text}\" is not a time; write \"2026-11-05\", \"2026-11-05T14:30\", RFC 3339, or how long ago: \"30m\", \"2h\", \"7d\""
        )
    };
    let ago = || -> Option<Timestamp> {
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let seconds = match unit {
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        let seconds = digits.parse::<u32>().ok().and_then(|number| i64::from(number).checked_mul(seconds))?;
        now.checked_sub(SignedDuration::from_secs(seconds)).ok()
    };
    let local = |at: DateTime| at.to_zoned(zone.clone()).ok().map(|at| at.timestamp());
    let timestamp = text
        .parse::<Timestamp>()
        .ok()
        .or_else(ago)
        .or_else(|| text.parse::<DateTime>().ok().and_then(local))
        .or_else(|| text.parse::<Date>().ok().and_then(|date| local(date.at(0, 0, 0, 0))));
    timestamp.map(|at| at.to_string()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_and_sizes_have_fitting_units() {
        let check = |got: String, expected: &str| assert_eq!(got, expected);
        check(duration(&json!(0)), "0 ms");
        check(duration(&json!(850)), "850 ms");
        check(duration(&json!(59_999)), "59 s");
        check(duration(&json!(187_000)), "3:07");
        check(duration(&json!(3_723_000)), "1:02:03");
        check(duration(&json!(null)), "-");
        check(size(&json!(0)), "0 B");
        check(size(&json!(999)), "999 B");
        check(size(&json!(1000)), "0.98 KiB");
        check(size(&json!(15_360)), "15.0 KiB");
        check(size(&json!(1_572_864)), "1.50 MiB");
        check(size(&json!(u64::MAX)), "16777216 TiB");
        check(size(&json!("?")), "?");
    }

    #[test]
    fn times_are_shown_in_the_zone() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(time(&json!("2026-11-05T23:30:00.123Z"), &zone), "2026-11-06 01:30:00");
        assert_eq!(time(&json!(0), &zone), "1970-01-01 02:00:00");
        assert_eq!(time(&json!("soon"), &zone), "soon");
        assert_eq!(time(&json!(null), &zone), "-");
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let (zone, now) = (TimeZone::fixed(jiff::tz::offset(2)), "2026-11-05T12:00:00Z".parse().unwrap());
        let check = |text: &str, expected: &str| assert_eq!(parse_time(text, &zone, now).unwrap(), expected);
        check("2026-11-05", "2026-11-04T22:00:00Z");
        check("2026-11-05T14:30", "2026-11-05T12:30:00Z");
        check("2026-11-05T14:30:00Z", "2026-11-05T14:30:00Z");
        check("2026-11-05T14:30:00+01:00", "2026-11-05T13:30:00Z");
        check("2h", "2026-11-05T10:00:00Z");
        check("7d", "2026-10-29T12:00:00Z");
        for wrong in ["", "h", "yesterday", "2026-13-01", "-2h", "5 h", "4294967295d", "é"] {
            assert!(parse_time(wrong, &zone, now).unwrap_err().contains("is not a time"), "{wrong}");
        }
    }
}
