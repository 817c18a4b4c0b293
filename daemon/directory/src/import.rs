//! Users from a file: CSV with a head, or TOML with a `[[user]]` for each.

use std::collections::{BTreeMap, BTreeSet};

use crate::fields::Field;
use crate::user::User;

/// Users in one file at most: ten times the largest organisation that one machine serves.
pub const USERS_MAX: usize = 100_000;

/// Errors told of one file at most: who has more has the wrong file.
const ERRORS_MAX: usize = 100;

/// Which form a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileForm {
    /// Comma-separated values (RFC 4180), also with semicolons or tabs; the first line names the fields.
    Csv,
    /// TOML with an array of tables `user`.
    Toml,
}

/// What is wrong with a line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineError {
    /// The line, from 1; 0 where it is the file as a whole.
    pub line: u64,
    /// What is wrong and what is right, without the value.
    pub text: String,
}

/// A user as a file tells of one: the fields that it names, and no others.
#[derive(Clone)]
pub struct Imported {
    /// Where it is in the file.
    pub line: u64,
    /// The key, in lower case.
    pub webex_email: String,
    /// The fields that are told, with their values as they were read.
    fields: Vec<(&'static Field, String)>,
}

impl std::fmt::Debug for Imported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Imported").field("line", &self.line).finish_non_exhaustive()
    }
}

impl Imported {
    /// The user that this makes of `user`: what is not told stays.
    #[must_use]
    pub fn onto(&self, user: &User) -> User {
        let mut changed = user.clone();
        for (field, value) in &self.fields {
            // It was checked when it was read.
            let _ = field.set(&mut changed, value);
        }
        changed
    }
}

/// Reads a file.
///
/// # Errors
/// Everything that is wrong with it, up to a hundred places; then nothing of it may be used.
pub fn read(form: FileForm, bytes: &[u8]) -> Result<Vec<Imported>, Vec<LineError>> {
    let whole = |text: &str| vec![LineError { line: 0, text: text.to_owned() }];
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes.get(..error.valid_up_to()).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count();
        let text = "this is not UTF-8; save the file as UTF-8 and import it again".to_owned();
        vec![LineError { line: line as u64 + 1, text }]
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let rows = match form {
        FileForm::Csv => csv_rows(text)?,
        FileForm::Toml => toml_rows(text)?,
    };
    if rows.is_empty() {
        return Err(whole("there is no user in this file"));
    }
    if rows.len() > USERS_MAX {
        return Err(whole("there are more than 100,000 users in this file"));
    }
    let (mut imported, mut errors, mut known) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (line, fields) in rows {
        match one(line, fields) {
            Ok(user) => {
                if let Some(before) = known.insert(user.webex_email.clone(), line) {
                    errors.push(LineError { line, text: format!("this user is in line {before} already") });
                }
                imported.push(user);
            }
            Err(wrong) => errors.extend(wrong.into_iter().map(|text| LineError { line, text })),
        }
    }
    errors.sort_by_key(|error| error.line);
    errors.truncate(ERRORS_MAX);
    if errors.is_empty() { Ok(imported) } else { Err(errors) }
}

/// Fields with their values, of one line.
type Row = (u64, Vec<(&'static Field, String)>);

fn one(line: u64, fields: Vec<(&'static Field, String)>) -> Result<Imported, Vec<String>> {
    let mut user = User::default();
    let errors: Vec<String> = fields.iter().filter_map(|(field, value)| field.set(&mut user, value).err()).collect();
    if !errors.is_empty() {
        return Err(errors);
    }
    if user.webex_email.is_empty() {
        return Err(vec!["webex_email is missing: it names the user".to_owned()]);
    }
    Ok(Imported { line, webex_email: user.webex_email, fields })
}

fn unknown(name: &str) -> String {
    let near = crate::fields::FIELDS.iter().map(|field| (distance(field.name, &name.to_lowercase()), field.name)).min();
    match near {
        Some((0..=4, near)) => format!("there is no field {name:?}; did you mean {near}?"),
        _ => format!("there is no field {name:?}"),
    }
}

/// How many letters differ (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(40).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

fn csv_rows(text: &str) -> Result<Vec<Row>, Vec<LineError>> {
    let head = text.lines().next().unwrap_or_default();
    // Spreadsheets write what their country uses between columns.
    let separator = [b',', b';', b'\t'].into_iter().max_by_key(|s| head.bytes().filter(|byte| byte == s).count());
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator.unwrap_or(b','))
        .flexible(true)
        .has_headers(true)
        .from_reader(text.as_bytes());
    let failed = |error: csv::Error| {
        let line = error.position().map_or(0, |at| line_of(text, at));
        vec![LineError {
            line,
            text: "this line cannot be read as CSV: look for a quotation mark that does not end".to_owned(),
        }]
    };
    let names = reader.headers().map_err(failed)?.clone();
    let (mut fields, mut errors, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    for name in &names {
        match Field::named(name) {
            Some(field) if seen.insert(field.name) => fields.push(field),
            Some(field) => errors.push(format!("the column {} is there twice", field.name)),
            None => errors.push(unknown(name.trim())),
        }
    }
    if !seen.contains("webex_email") {
        errors.push("the first line must name the columns, webex_email among them".to_owned());
    }
    if !errors.is_empty() {
        return Err(errors.into_iter().map(|text| LineError { line: 1, text }).collect());
    }
    let (mut rows, mut errors) = (Vec::new(), Vec::new());
    for record in reader.records() {
        let record = record.map_err(failed)?;
        let line = record.position().map_or(0, |at| line_of(text, at));
        if record.iter().all(|value| value.trim().is_empty()) {
            continue;
        }
        if record.len() != fields.len() {
            let text = format!("this line has {} columns, the first one has {}", record.len(), fields.len());
            errors.push(LineError { line, text });
            continue;
        }
        rows.push((line, fields.iter().copied().zip(record.iter().map(str::to_owned)).collect()));
    }
    errors.truncate(ERRORS_MAX);
    if errors.is_empty() { Ok(rows) } else { Err(errors) }
}

fn toml_rows(text: &str) -> Result<Vec<Row>, Vec<LineError>> {
    let line_at = |at: usize| line_at(text, at);
    let file: toml::Spanned<TomlFile> = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(0, |span| line_at(span.start));
        vec![LineError { line, text: error.message().to_owned() }]
    })?;
    let (mut rows, mut errors) = (Vec::new(), Vec::new());
    for user in file.into_inner().user {
        let line = line_at(user.span().start);
        let mut fields = Vec::new();
        for (name, value) in user.into_inner() {
            let at = line_at(name.span().start);
            let Some(field) = Field::named(name.get_ref()) else {
                errors.push(LineError { line: at, text: unknown(name.get_ref()) });
                continue;
            };
            match text_of(&value) {
                Some(value) => fields.push((field, value)),
                None => errors.push(LineError { line: at, text: format!("{} must be {}", field.name, field.takes) }),
            }
        }
        rows.push((line, fields));
    }
    errors.truncate(ERRORS_MAX);
    if errors.is_empty() { Ok(rows) } else { Err(errors) }
}

fn line_at(text: &str, at: usize) -> u64 {
    text.get(..at).unwrap_or(text).matches('\n').count() as u64 + 1
}

/// The line of a record, which begins behind what is left of the end of the one before.
fn line_of(text: &str, at: &csv::Position) -> u64 {
    let begins = usize::try_from(at.byte()).unwrap_or(usize::MAX);
    let ends = text.bytes().skip(begins).take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    line_at(text, begins.saturating_add(ends))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TomlFile {
    #[serde(default)]
    user: Vec<toml::Spanned<BTreeMap<toml::Spanned<String>, toml::Value>>>,
}

fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(is_so) => Some(if *is_so { "yes" } else { "no" }.to_owned()),
        toml::Value::Array(list) => {
            let texts: Option<Vec<&str>> = list.iter().map(toml::Value::as_str).collect();
            texts.map(|texts| texts.join(";"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_csv(text: &str, expected: &[&str]) {
        let users = read(FileForm::Csv, text.as_bytes()).unwrap();
        let shown: Vec<String> = users
            .iter()
            .map(|one| {
                let user = one.onto(&User::default());
                format!(
                    "{} {} {} {}",
                    one.line,
                    user.webex_email,
                    user.display_name(),
                    user.supervised_groups.join("+")
                )
            })
            .collect();
        assert_eq!(shown, expected, "{text}");
    }

    fn check_wrong(form: FileForm, text: &[u8], expected: &[(u64, &str)]) {
        let errors = read(form, text).unwrap_err();
        let found: Vec<(u64, &str)> = errors.iter().map(|error| (error.line, error.text.as_str())).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((line, text), (expected_line, part)) in found.iter().zip(expected) {
            assert!(line == expected_line && text.contains(part), "{line} {text:?} is not {expected_line} {part:?}");
        }
    }

    #[test]
    fn csv_as_spreadsheets_write_it() {
        check_csv("webex_email,first_name,last_name\na@b,Ann,Lee\n", &["2 a@b Ann Lee "]);
        check_csv(
            "\u{feff}Webex_Email;last_name;supervised_groups\r\nA@B;\"O;Neil\";\"x; y\"\r\n;;\r\nc@d;;\r\n",
            &["2 a@b O;Neil x+y", "4 c@d c@d "],
        );
        check_csv("webex_email\tfirst_name\na@b\t\"two\"\"quotes\"\n", &["2 a@b two\"quotes "]);
        check_csv("webex_email\na@b", &["2 a@b a@b "]);
    }

    #[test]
    fn every_line_that_is_wrong_is_told() {
        let csv = FileForm::Csv;
        check_wrong(csv, b"", &[(1, "webex_email among them")]);
        check_wrong(csv, b"webex_email\n", &[(0, "no user")]);
        check_wrong(csv, b"email,frist_name\n", &[(1, "did you mean first_name"), (1, "webex_email among them")]);
        check_wrong(csv, b"webex_email,email,Email\na@b,,\n", &[(1, "email is there twice")]);
        check_wrong(csv, b"webex_email,pin\na@b,12\nc,1234\nd@e\n", &[(4, "1 columns")]);
        check_wrong(csv, b"webex_email,pin\na@b,12\nc,1234\n", &[(2, "pin must be"), (3, "webex_email must be")]);
        check_wrong(csv, b"webex_email\na@b\nA@B\n", &[(3, "in line 2 already")]);
        check_wrong(csv, b"webex_email\na@b\n\xff@b\n", &[(3, "not UTF-8")]);
        let toml = FileForm::Toml;
        check_wrong(toml, b"[[user]]\nfirst_name = 'a'\n", &[(1, "webex_email is missing")]);
        check_wrong(toml, b"[[user]]\nwebex_email = 'a@b'\nlevle = 'base'\n", &[(3, "did you mean level")]);
        check_wrong(toml, b"[[user]]\nwebex_email = 'a@b'\ngroup = { a = 1 }\n", &[(3, "group must be")]);
        check_wrong(toml, b"[[users]]\nwebex_email = 'a@b'\n", &[(1, "unknown field")]);
        check_wrong(toml, b"[[user]]\nwebex_email = \n", &[(2, "")]);
    }

    #[test]
    fn toml_takes_lists_numbers_and_yes() {
        let text =
            "[[user]]\nwebex_email = 'A@b'\nsupervised_groups = ['x', 'y']\nnotify = true\nnumeric_user_id = 7\n";
        let users = read(FileForm::Toml, text.as_bytes()).unwrap();
        let user = users[0].onto(&User::default());
        assert_eq!((user.webex_email.as_str(), user.notify, user.numeric_user_id), ("a@b", true, Some(7)));
        assert_eq!(user.supervised_groups, ["x", "y"]);
    }

    #[test]
    fn what_a_file_does_not_tell_stays() {
        let before = User { group: "Sales".into(), first_name: "Ann".into(), ..User::default() };
        let users = read(FileForm::Csv, b"webex_email,first_name\na@b,Bea\n").unwrap();
        let after = users[0].onto(&before);
        assert_eq!((after.group.as_str(), after.first_name.as_str()), ("Sales", "Bea"));
    }

    proptest::proptest! {
        #[test]
        fn no_file_panics(bytes: Vec<u8>, text in "(webex_email|pin|[[user]]|,|;|\n|=|\"|a@b){0,30}") {
            for form in [FileForm::Csv, FileForm::Toml] {
                let _ = read(form, &bytes);
                let _ = read(form, text.as_bytes());
            }
        }
    }
}
