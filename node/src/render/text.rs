//! Foreign text on its way to a terminal: control sequences, invisible direction marks and tag
//! characters are taken out, so that a message can neither move the cursor nor lie about itself.

/// `text` without anything that commands a terminal. Line breaks and tabs stay.
pub(crate) fn printable(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => skip_escape(&mut rest),
            '\u{9b}' => skip_parameters(&mut rest),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => skip_string(&mut rest),
            '\r' if rest.peek() == Some(&'\n') => {}
            '\u{2028}' | '\u{2029}' | '\u{85}' => kept.push('\n'),
            '\n' | '\t' => kept.push(c),
            c if is_hostile(c) => {}
            c => kept.push(c),
        }
    }
    kept
}

/// The same on one line: breaks and tabs become spaces.
pub(crate) fn one_line(text: &str) -> String {
    printable(text).replace(['\n', '\t'], " ")
}

/// Writes hostile characters of a JSON document as `\u` escapes: the same document to a parser,
/// harmless on a terminal. They can only stand inside strings, where escapes are allowed.
pub(crate) fn escape_in_json(json: &str) -> String {
    if !json.chars().any(is_hostile) {
        return json.to_owned();
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_hostile(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// C0, DEL and C1 controls; direction marks, embeddings and isolates; line separators; invisible
/// operators, tags and the byte order mark.
fn is_hostile(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

type Rest<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// After ESC (ECMA-48 §5.3, §5.4, §5.6): a control sequence, a command string, or a short escape.
fn skip_escape(rest: &mut Rest<'_>) {
    match rest.peek() {
        Some('[') => {
            rest.next();
            skip_parameters(rest);
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            rest.next();
            skip_string(rest);
        }
        Some(_) | None => {
            while rest.next_if(|c| matches!(c, ' '..='/')).is_some() {}
            rest.next_if(|c| matches!(c, '0'..='~'));
        }
    }
}

/// Parameter and intermediate bytes, then the final byte.
fn skip_parameters(rest: &mut Rest<'_>) {
    while rest.next_if(|c| matches!(c, ' '..='?')).is_some() {}
    rest.next_if(|c| matches!(c, '@'..='~'));
}

/// Up to the string terminator, BEL or the end of the line: an unterminated one must not swallow
/// what follows.
fn skip_string(rest: &mut Rest<'_>) {
    while let Some(c) = rest.next_if(|c| *c != '\n') {
        match c {
            '\u{7}' | '\u{9c}' => return,
            '\u{1b}' => {
                rest.next_if_eq(&'\\');
                return;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_cursor_moves_are_taken_out() {
        assert_eq!(printable("a\u{1b}[31mred\u{1b}[0m\u{1b}[2Jb"), "aredb");
        assert_eq!(printable("a\u{9b}5;5Hb"), "ab");
        assert_eq!(printable("a\u{1b}(Bb\u{1b}cd"), "abd");
    }

    #[test]
    fn window_titles_and_links_are_taken_out() {
        assert_eq!(printable("\u{1b}]0;owned\u{7}text"), "text");
        assert_eq!(printable("\u{1b}]8;;http://evil\u{1b}\\label\u{1b}]8;;\u{1b}\\"), "label");
    }

    #[test]
    fn an_unterminated_command_ends_with_its_line() {
        assert_eq!(printable("\u{1b}]0;owned\nsecond"), "\nsecond");
    }

    #[test]
    fn direction_marks_and_tags_are_taken_out() {
        assert_eq!(printable("safe\u{202e}gnp.exe\u{2066}\u{200f}\u{e0041}"), "safegnp.exe");
    }

    #[test]
    fn ordinary_text_of_any_script_stays() {
        let text = "héllo 日本語 👩\u{200d}🔬 שלום\tend\nnext";
        assert_eq!(printable(text), text);
    }

    #[test]
    fn a_carriage_return_cannot_overwrite_a_line() {
        assert_eq!(printable("from build\rfrom admin"), "from buildfrom admin");
        assert_eq!(printable("one\r\ntwo"), "one\ntwo");
    }

    #[test]
    fn json_keeps_hostile_characters_as_escapes() {
        let json = serde_json::to_string("a\u{202e}b\u{9b}c\u{e0041}d\u{1b}").unwrap();
        let escaped = escape_in_json(&json);
        assert_eq!(escaped, r#""a\u202eb\u009bc\udb40\udc41d\u001b""#);
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), "a\u{202e}b\u{9b}c\u{e0041}d\u{1b}");
    }
}
