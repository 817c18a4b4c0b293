//! Reads the documents: their blocks, commands, settings, links and headings.

use std::fs;
use std::path::{Path, PathBuf};

/// A page, by its path below the repository's root.
pub(crate) struct Page {
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) blocks: Vec<Block>,
}

/// A fenced block.
pub(crate) struct Block {
    /// File and line.
    pub(crate) place: String,
    /// What stands behind the fence.
    pub(crate) info: String,
    pub(crate) text: String,
}

impl Block {
    /// Its lines; one that goes on in the next is one with it.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.text.replace("\\\n", " ").lines().map(str::to_owned).collect()
    }
}

/// A command line of `callvaultctl`.
pub(crate) struct Said {
    pub(crate) words: Vec<String>,
    /// In a sentence, where arguments may be left out.
    pub(crate) inline: bool,
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md, the changelog, the architecture and everything in docs/.
pub(crate) fn all() -> Vec<Page> {
    let mut paths = vec!["README.md".to_owned(), "CHANGELOG.md".to_owned(), "ARCHITECTURE.md".to_owned()];
    files("docs", "md", &mut paths);
    paths.iter().map(|path| Page::read(path)).collect()
}

fn files(folder: &str, ending: &str, found: &mut Vec<String>) {
    let mut names: Vec<_> = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap()).collect();
    names.sort_by_key(fs::DirEntry::file_name);
    for entry in names {
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            files(&path, ending, found);
        } else if path.ends_with(&format!(".{ending}")) {
            found.push(path);
        }
    }
}

impl Page {
    pub(crate) fn read(path: &str) -> Self {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let mut blocks: Vec<Block> = Vec::new();
        let mut inside = false;
        for (index, line) in text.lines().enumerate() {
            if let Some(info) = line.trim_start().strip_prefix("```") {
                inside = !inside;
                if inside {
                    let (place, info) = (format!("{path}:{}", index + 1), info.trim().to_owned());
                    blocks.push(Block { place, info, text: String::new() });
                }
            } else if let Some(block) = blocks.last_mut().filter(|_| inside) {
                block.text += line;
                block.text.push('\n');
            }
        }
        assert!(!inside, "{path}: a fence is not closed");
        Self { path: path.to_owned(), text, blocks }
    }

    /// The lines outside of fences.
    fn prose(&self) -> String {
        let mut inside = false;
        let kept = self.text.lines().filter(|line| {
            let fence = line.trim_start().starts_with("```");
            inside ^= fence;
            !inside && !fence
        });
        kept.collect::<Vec<_>>().join("\n")
    }

    /// What stands between backticks.
    pub(crate) fn inline(&self) -> impl Iterator<Item = String> {
        let prose = self.prose();
        let code: Vec<String> = prose.split('`').skip(1).step_by(2).map(|code| code.replace('\n', " ")).collect();
        code.into_iter()
    }

    /// Every command line of `callvaultctl`, in blocks and in sentences; `a|b` is both.
    pub(crate) fn commands(&self) -> Vec<Said> {
        let fenced = self.blocks.iter().filter(|block| block.info.starts_with("sh")).flat_map(Block::lines);
        let fenced = fenced.map(|line| (line, false));
        let inline = self.inline().map(|code| (code, true));
        fenced.chain(inline).flat_map(|(line, inline)| said(&line, inline)).collect()
    }

    /// Targets of relative links; one within the page has the page's name.
    pub(crate) fn links(&self) -> Vec<String> {
        let prose = self.prose();
        let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        let own = self.path.rsplit('/').next().unwrap();
        let whole = |target: &str| if target.starts_with('#') { format!("{own}{target}") } else { target.to_owned() };
        targets.map(|(target, _)| whole(target)).filter(|target| !target.contains(':')).collect()
    }
}

fn said(line: &str, inline: bool) -> Vec<Said> {
    let words = words(line);
    let program = |word: &String| word == "callvaultctl" || word == "ctl";
    let first = words.iter().take_while(|word| *word != "alias").position(program);
    // A sentence speaks of files and folders of that name as well; a command begins with it.
    let Some(first) = first.filter(|first| !inline || *first == usize::from(words[0] == "sudo")) else {
        return Vec::new();
    };
    let end = words.iter().position(|word| ["|", ">", "&&", ";"].contains(&word.as_str())).unwrap_or(words.len());
    let mut lines: Vec<Vec<String>> = vec![Vec::new()];
    // An ellipsis is the value of an option, or stands for more arguments.
    let more = |at: &usize| words[*at] == "…" && !words[at - 1].starts_with("--");
    for word in (first..end).filter(|at| !more(at)).map(|at| &words[at]) {
        let each: Vec<&str> = if inline { word.split('|').collect() } else { vec![word] };
        lines = lines
            .iter()
            .flat_map(|line| each.iter().map(|one| [line.as_slice(), &[(*one).to_owned()]].concat()))
            .collect();
    }
    lines.into_iter().map(|words| Said { words, inline }).collect()
}

/// A line of shell in words, up to a comment; quotes keep words together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '(' && word.ends_with('$') => {
                word.push(c);
                quote = Some(')');
            }
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '#' && word.is_empty() => break,
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            _ => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// What a line of shell does, in the word by which a test names it: the verb of `callvaultctl` or `make`, else the program.
pub(crate) fn verb(line: &str) -> Option<String> {
    let mut words = words(line).into_iter().peekable();
    if words.peek().is_some_and(|word| word == "sudo") {
        words.next();
        if words.peek().is_some_and(|word| word == "-u") {
            words.nth(1);
        }
    }
    let program = words.next()?;
    let wrapped = ["callvaultctl", "make", "systemctl"].contains(&program.as_str());
    if wrapped { words.find(|word| !word.starts_with('-')) } else { Some(program) }
}

pub(crate) fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '-').any(|one| one == word)
}

/// `section.key`, where that is what the code says, alone or with a value.
pub(crate) fn setting(code: &str) -> Option<String> {
    let name = code.split([' ', '=']).next()?;
    let (section, key) = name.split_once('.')?;
    let plain =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    (plain(section) && plain(key)).then(|| name.to_owned())
}

/// What is wrong with a link from a page in `folder`; nothing where it leads to something.
pub(crate) fn broken(folder: &Path, link: &str) -> Option<String> {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let path: PathBuf = root().join(folder).join(file);
    if !path.exists() {
        return Some("there is no such file".to_owned());
    }
    let there = anchor.is_empty() || anchors(&fs::read_to_string(path).unwrap()).iter().any(|one| one == anchor);
    (!there).then(|| "there is no such heading".to_owned())
}

/// The names of headings, as browsers of repositories make them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim().to_lowercase());
    let name = |heading: String| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(name).collect()
}

/// Pages that messages, alerts and settings name: where, and what.
pub(crate) fn named_elsewhere() -> Vec<(String, String)> {
    let mut paths = Vec::new();
    for folder in ["recorder", "daemon", "packaging", "etc"] {
        for ending in ["rs", "toml", "yml", "json", "1", "5", "8"] {
            files(folder, ending, &mut paths);
        }
    }
    let mut named = Vec::new();
    for path in paths {
        let text = fs::read_to_string(root().join(&path)).unwrap_or_default();
        for (at, _) in text.match_indices("docs/") {
            // A path that goes up, or a folder of another name, is none of ours.
            if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '/' || c == '-') {
                continue;
            }
            let end = text[at..]
                .find(|c: char| !(c.is_ascii_alphanumeric() || "/._-#".contains(c)))
                .map_or(text.len(), |end| at + end);
            let link = text[at..end].trim_end_matches('.');
            if link.contains(".md") {
                named.push((path.clone(), link.to_owned()));
            }
        }
    }
    named
}
