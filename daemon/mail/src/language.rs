//! Dates, durations and sizes as people write them.

use jiff::Zoned;
use jiff::civil::{Date, Weekday};

/// How a language writes them.
pub(crate) struct Language {
    /// ISO 639-1.
    pub(crate) code: &'static str,
    months: [&'static str; 12],
    /// From Monday.
    weekdays: [&'static str; 7],
    date: fn(u8, &str, i16) -> String,
    /// Hours, minutes, seconds.
    units: [&'static str; 3],
    decimal: char,
}

/// Those with templates built in, English first.
pub(crate) const LANGUAGES: [Language; 5] = [
    Language {
        code: "en",
        months: [
            "January",
            "February",
            "March",
            "April",
            "May",
            "June",
            "July",
            "August",
            "September",
            "October",
            "November",
            "December",
        ],
        weekdays: ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
        date: |day, month, year| format!("{day} {month} {year}"),
        units: ["h", "min", "s"],
        decimal: '.',
    },
    Language {
        code: "it",
        months: [
            "gennaio",
            "febbraio",
            "marzo",
            "aprile",
            "maggio",
            "giugno",
            "luglio",
            "agosto",
            "settembre",
            "ottobre",
            "novembre",
            "dicembre",
        ],
        weekdays: ["lunedì", "martedì", "mercoledì", "giovedì", "venerdì", "sabato", "domenica"],
        date: |day, month, year| match day {
            1 => format!("1º {month} {year}"),
            day => format!("{day} {month} {year}"),
        },
        units: ["h", "min", "s"],
        decimal: ',',
    },
    Language {
        code: "de",
        months: [
            "Januar",
            "Februar",
            "März",
            "April",
            "Mai",
            "Juni",
            "Juli",
            "August",
            "September",
            "Oktober",
            "November",
            "Dezember",
        ],
        weekdays: ["Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"],
        date: |day, month, year| format!("{day}. {month} {year}"),
        units: ["Std.", "Min.", "Sek."],
        decimal: ',',
    },
    Language {
        code: "fr",
        months: [
            "janvier",
            "février",
            "mars",
            "avril",
            "mai",
            "juin",
            "juillet",
            "août",
            "septembre",
            "octobre",
            "novembre",
            "décembre",
        ],
        weekdays: ["lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"],
        date: |day, month, year| match day {
            1 => format!("1er {month} {year}"),
            day => format!("{day} {month} {year}"),
        },
        units: ["h", "min", "s"],
        decimal: ',',
    },
    Language {
        code: "es",
        months: [
            "enero",
            "febrero",
            "marzo",
            "abril",
            "mayo",
            "junio",
            "julio",
            "agosto",
            "septiembre",
            "octubre",
            "noviembre",
            "diciembre",
        ],
        weekdays: ["lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo"],
        date: |day, month, year| format!("{day} de {month} de {year}"),
        units: ["h", "min", "s"],
        decimal: ',',
    },
];

impl Language {
    /// The language of these templates; none where somebody wrote templates in one that is not known here, who gets dates and
    /// durations in a form that belongs to no language.
    pub(crate) fn of(code: &str) -> Option<&'static Self> {
        let primary = code.split('-').next().unwrap_or(code);
        LANGUAGES.iter().find(|language| language.code == primary)
    }
}

/// `5 November 2026`, or `2026-11-05` where the language is not known.
pub(crate) fn date(language: Option<&Language>, day: Date) -> String {
    let month = usize::try_from(day.month() - 1).ok();
    let Some((language, month)) = language.zip(month) else { return day.to_string() };
    let Some(month) = language.months.get(month) else { return day.to_string() };
    (language.date)(u8::try_from(day.day()).unwrap_or_default(), month, day.year())
}

/// The day of the week; empty where the language is not known.
pub(crate) fn weekday(language: Option<&Language>, day: Weekday) -> &'static str {
    let place = usize::try_from(day.to_monday_zero_offset()).ok();
    language.zip(place).and_then(|(language, place)| language.weekdays.get(place)).copied().unwrap_or_default()
}

/// `14:30`; all five languages write 24 hours in business mail.
pub(crate) fn time(at: &Zoned) -> String {
    format!("{:02}:{:02}", at.hour(), at.minute())
}

/// The zone with its difference to UTC, which tells apart the hour that comes twice: `CET, UTC+1`.
pub(crate) fn zone(at: &Zoned) -> String {
    let seconds = at.offset().seconds();
    let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.unsigned_abs() / 60);
    let utc = match (minutes / 60, minutes % 60) {
        (0, 0) => return "UTC".to_owned(),
        (hours, 0) => format!("UTC{sign}{hours}"),
        (hours, minutes) => format!("UTC{sign}{hours}:{minutes:02}"),
    };
    // Zones without a name of their own are called by their difference already.
    let name = at.strftime("%Z").to_string();
    if name.chars().all(|c| c.is_ascii_alphabetic()) { format!("{name}, {utc}") } else { utc }
}

/// `1 h 3 min 20 s`, rounded to seconds; what is zero is left out, but for no seconds at all.
pub(crate) fn duration(language: Option<&Language>, ms: u64) -> String {
    let seconds = ms.saturating_add(500) / 1_000;
    let parts = [seconds / 3_600, seconds / 60 % 60, seconds % 60];
    let Some(language) = language else { return format!("{}:{:02}:{:02}", parts[0], parts[1], parts[2]) };
    let shown: Vec<String> = parts
        .iter()
        .zip(language.units)
        .filter(|(number, _)| **number > 0)
        .map(|(number, unit)| format!("{number} {unit}"))
        .collect();
    if shown.is_empty() { format!("0 {}", language.units[2]) } else { shown.join(" ") }
}

/// `1.4 MB`, a megabyte being 2^20 bytes as in the settings; at least 0.1.
pub(crate) fn size(language: Option<&Language>, bytes: u64) -> String {
    let tenths = (bytes.saturating_mul(10) / (1 << 20)).max(1);
    let decimal = language.map_or('.', |language| language.decimal);
    match tenths % 10 {
        0 => format!("{} MB", tenths / 10),
        tenth => format!("{}{decimal}{tenth} MB", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jiff::tz::TimeZone;

    use super::*;

    #[test]
    fn dates_are_written_as_people_write_them() {
        let check = |code: &str, day: &str, expected: &str| {
            let day: Date = day.parse().unwrap();
            let language = Language::of(code);
            let said = format!("{} {}", weekday(language, day.weekday()), date(language, day));
            assert_eq!(said.trim(), expected, "{code}");
        };
        check("en", "2026-11-05", "Thursday 5 November 2026");
        check("it", "2026-11-05", "giovedì 5 novembre 2026");
        check("it", "2026-03-01", "domenica 1º marzo 2026");
        check("de", "2026-11-05", "Donnerstag 5. November 2026");
        check("de-AT", "2026-03-01", "Sonntag 1. März 2026");
        check("fr", "2026-08-01", "samedi 1er août 2026");
        check("fr", "2026-12-31", "jeudi 31 décembre 2026");
        check("es", "2024-02-29", "jueves 29 de febrero de 2024");
        check("pt", "2026-11-05", "2026-11-05");
    }

    #[test]
    fn the_hour_that_comes_twice_is_told_apart() {
        let check = |zone_name: &str, at: &str, expected: &str| {
            let at = at.parse::<Timestamp>().unwrap().to_zoned(TimeZone::get(zone_name).unwrap());
            assert_eq!(format!("{} ({})", time(&at), zone(&at)), expected, "{zone_name} {at}");
        };
        check("Europe/Rome", "2026-10-25T00:30:00Z", "02:30 (CEST, UTC+2)");
        check("Europe/Rome", "2026-10-25T01:30:00Z", "02:30 (CET, UTC+1)");
        check("America/New_York", "2026-01-01T05:00:00Z", "00:00 (EST, UTC-5)");
        check("Asia/Kolkata", "2026-01-01T00:00:00Z", "05:30 (IST, UTC+5:30)");
        check("UTC", "2026-01-01T00:00:00Z", "00:00 (UTC)");
        check("America/Sao_Paulo", "2026-01-01T12:00:00Z", "09:00 (UTC-3)");
    }

    #[test]
    fn durations_and_sizes() {
        let check = |code: &str, ms: u64, bytes: u64, expected: &str| {
            let language = Language::of(code);
            assert_eq!(format!("{}; {}", duration(language, ms), size(language, bytes)), expected);
        };
        check("en", 3_800_000, 15 << 20, "1 h 3 min 20 s; 15 MB");
        check("en", 0, 0, "0 s; 0.1 MB");
        check("en", 499, 1_468_007, "0 s; 1.4 MB");
        check("en", 59_500, 1 << 20, "1 min; 1 MB");
        check("de", 7_205_000, 1_468_007, "2 Std. 5 Sek.; 1,4 MB");
        check("fr", 61_000, 1_468_007, "1 min 1 s; 1,4 MB");
        check("pt", 61_000, 1_468_007, "0:01:01; 1.4 MB");
        check("en", u64::MAX, u64::MAX, "5124095576030 h 25 min 51 s; 1759218604441.5 MB");
    }
}
