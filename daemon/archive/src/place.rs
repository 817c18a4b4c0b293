//! Where an archive lies, and what its data key is bound to.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use uuid::Uuid;

/// Path of a recording's archive below the store's root, with `/` between the folders:
/// `<yyyy>/<mm>/<dd>/<recording id>.cva`. `started_at_ns` is the recording's start, nanoseconds since the Unix epoch; the day is in UTC,
/// so that the path does not depend on a time zone setting.
pub fn relative_path(recording: &Uuid, started_at_ns: i64) -> String {
    let started = Timestamp::from_nanosecond(i128::from(started_at_ns))
        .expect("64 bits of nanoseconds end in the year 2262, timestamps in 9999");
    let day = started.to_zoned(TimeZone::UTC).date();
    format!("{:04}/{:02}/{:02}/{}.cva", day.year(), day.month(), day.day(), recording.hyphenated())
}

/// The HPKE context under which the data key of a recording's archive is sealed: `archive`, then the 16 bytes of the id. A
/// sealed key put into another recording's archive does not open.
pub fn key_context(recording: &Uuid) -> Vec<u8> {
    [b"archive".as_slice(), recording.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(started_at_ns: i64, day: &str) {
        let path = relative_path(&Uuid::from_u128(7), started_at_ns);
        assert_eq!(path, format!("{day}/00000000-0000-0000-0000-000000000007.cva"));
    }

    #[test]
    fn the_path_is_the_day_in_utc() {
        check(0, "1970/01/01");
        check(-1, "1969/12/31");
        check(1_709_251_199_999_999_999, "2024/02/29");
        check(1_709_251_200_000_000_000, "2024/03/01");
        check(i64::MAX, "2262/04/11");
        check(i64::MIN, "1677/09/21");
    }

    #[test]
    fn the_context_names_the_recording() {
        let context = key_context(&Uuid::from_bytes([9; 16]));
        assert_eq!(context, [b"archive".as_slice(), &[9; 16]].concat());
    }
}
