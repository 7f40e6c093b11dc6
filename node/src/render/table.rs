//! Columns for people.

/// Lines of `rows` under `titles`, every column as wide as its widest cell; the last one is open.
pub(crate) fn lines<const N: usize>(titles: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let mut widths = titles.map(|title| title.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let padded: Vec<String> =
            cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let body = rows.iter().map(|row| line(row.each_ref().map(String::as_str)));
    std::iter::once(line(titles)).chain(body).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [["build".to_owned(), "direct".to_owned()], ["a".to_owned(), "-".to_owned()]];
        assert_eq!(lines(["PEER", "PATH"], &rows), ["PEER   PATH", "build  direct", "a      -"]);
    }
}
