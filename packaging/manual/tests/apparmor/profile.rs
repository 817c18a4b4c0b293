//! A profile as `apparmor_parser` reads it: its rules with those of all abstractions, and what they allow.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository's folder.
pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where the profile of this program is: callvaultd's has those of what it starts.
pub(crate) fn file(name: &str) -> PathBuf {
    let name = if name == "callvault-portal" { name } else { "callvaultd" };
    top().join("packaging/apparmor").join(name)
}

/// A rule about files.
#[derive(Debug, Clone)]
pub(crate) struct FileRule {
    /// Which files, variables put in.
    pub(crate) pattern: String,
    /// Letters of what may be done with them.
    pub(crate) rights: String,
}

/// A profile's rules.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    /// Those about files.
    pub(crate) files: Vec<FileRule>,
    /// All others, as they are written.
    pub(crate) others: Vec<String>,
}

impl Profile {
    /// With what its abstractions have.
    pub(crate) fn whole(name: &str) -> Self {
        let output = Command::new("apparmor_parser").arg("-p").arg(file(name)).output();
        let output = output.expect("apparmor_parser is there: packaging/prerequisites test");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self::parse(name, &String::from_utf8(output.stdout).unwrap(), &mut BTreeMap::new())
    }

    /// What stands in the file itself.
    pub(crate) fn own(name: &str) -> Self {
        let known =
            [("@{run}", "/run"), ("@{PROC}", "/proc"), ("@{sys}", "/sys"), ("@{pid}", "1"), ("@{etc_ro}", "/etc")];
        let mut variables = known.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self::parse(name, &std::fs::read_to_string(file(name)).unwrap(), &mut variables)
    }

    fn parse(name: &str, text: &str, variables: &mut BTreeMap<String, String>) -> Self {
        let (mut profile, mut is_of_it) = (Self::default(), false);
        for line in text.lines() {
            // Nothing is nested here.
            if let Some(begun) = line.strip_prefix("profile ") {
                is_of_it = begun.split_whitespace().next() == Some(name);
            }
            let line = line.trim();
            if let Some((name, values)) = line.split_once('=').filter(|_| line.starts_with("@{")) {
                let values: Vec<&str> = values.split_whitespace().map(|value| value.trim_end_matches('/')).collect();
                let name = name.trim_end_matches(['+', ' ']).to_owned();
                let more = variables.get(&name).map(|before| format!("{before},")).unwrap_or_default();
                variables.insert(name, format!("{more}{}", values.join(",")));
            }
            let is_rule = is_of_it && !line.starts_with('#');
            let Some(rule) = line.strip_suffix(',').filter(|_| is_rule) else { continue };
            let rule = rule.strip_prefix("owner ").unwrap_or(rule);
            if !rule.starts_with(['/', '@']) {
                profile.others.push(rule.to_owned());
                continue;
            }
            let mut words = rule.split_whitespace();
            let (pattern, rights) = (words.next().unwrap(), words.next().unwrap());
            profile.files.push(FileRule { pattern: with_values(pattern, variables), rights: rights.to_owned() });
        }
        assert!(!profile.files.is_empty());
        profile
    }

    /// What of `rights` it does not allow on this path.
    pub(crate) fn lacks(&self, path: &str, rights: &str) -> String {
        let matching = self.files.iter().filter(|rule| matches(rule.pattern.as_bytes(), path.as_bytes()));
        let allowed: String = matching.map(|rule| rule.rights.as_str()).collect();
        rights.chars().filter(|right| !allowed.contains(*right)).collect()
    }
}

/// The pattern with its variables' values, of which there may be several.
fn with_values(pattern: &str, variables: &BTreeMap<String, String>) -> String {
    let mut text = pattern.to_owned();
    while let Some(at) = text.find("@{") {
        let end = at + text[at..].find('}').unwrap() + 1;
        // What nobody gave a value might be anything.
        let value = variables.get(&text[at..end]).map_or("**".to_owned(), |value| format!("{{{value}}}"));
        text.replace_range(at..end, &value);
    }
    text
}

/// Every pattern that this one is short for, without braces.
pub(crate) fn expanded(pattern: &str) -> Vec<String> {
    let Some((begin, end)) = first_braces(pattern) else { return vec![pattern.to_owned()] };
    let (mut depth, mut choices) = (0, vec![String::new()]);
    for letter in pattern[begin + 1..end].chars() {
        match letter {
            ',' if depth == 0 => choices.push(String::new()),
            _ => {
                depth += i32::from(letter == '{') - i32::from(letter == '}');
                choices.last_mut().unwrap().push(letter);
            }
        }
    }
    let all =
        choices.iter().flat_map(|choice| expanded(&format!("{}{choice}{}", &pattern[..begin], &pattern[end + 1..])));
    all.collect()
}

fn first_braces(pattern: &str) -> Option<(usize, usize)> {
    let (begin, mut depth) = (pattern.find('{')?, 0);
    let end = pattern[begin..].char_indices().find(|(_, letter)| {
        depth += i32::from(*letter == '{') - i32::from(*letter == '}');
        depth == 0
    })?;
    Some((begin, begin + end.0))
}

/// Whether a path is one of those that the pattern stands for, by the rules of apparmor.d(5).
pub(crate) fn matches(pattern: &[u8], path: &[u8]) -> bool {
    if pattern.contains(&b'{') {
        let text = std::str::from_utf8(pattern).unwrap();
        return expanded(text).iter().any(|pattern| matches(pattern.as_bytes(), path));
    }
    match (pattern, path) {
        ([], rest) => rest.is_empty(),
        ([b'*', b'*', rest @ ..], _) => (0..=path.len()).any(|taken| matches(rest, &path[taken..])),
        ([b'*', rest @ ..], _) => {
            let most = path.iter().position(|byte| *byte == b'/').unwrap_or(path.len());
            (0..=most).any(|taken| matches(rest, &path[taken..]))
        }
        ([b'?', rest @ ..], [byte, after @ ..]) => *byte != b'/' && matches(rest, after),
        ([b'[', rest @ ..], [byte, after @ ..]) => {
            let end = rest.iter().position(|byte| *byte == b']').unwrap();
            in_class(&rest[..end], *byte) && matches(&rest[end + 1..], after)
        }
        ([wanted, rest @ ..], [byte, after @ ..]) => wanted == byte && matches(rest, after),
        _ => false,
    }
}

fn in_class(class: &[u8], byte: u8) -> bool {
    let (class, is_none_of) = class.strip_prefix(b"^").map_or((class, false), |class| (class, true));
    let is_in = match class {
        [from, b'-', to] => (from..=to).contains(&&byte),
        _ => class.contains(&byte),
    };
    is_in != is_none_of
}
