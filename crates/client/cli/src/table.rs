//! Lists for people: columns that line up, nothing cut, because ids are typed again.

/// Rows under their headers, in columns as wide as the widest cell.
#[must_use]
pub(crate) fn table<const N: usize>(headers: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = headers.map(|header| header.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let headers = headers.map(str::to_owned);
    let line = |cells: &[String; N]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let lines: Vec<String> = std::iter::once(&headers).chain(rows).map(line).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_is_cut() {
        let rows = [["1".into(), "long".repeat(9)], ["1000".into(), "x".into()]];
        let shown = table(["ID", "MODEL"], &rows);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "ID    MODEL");
        assert_eq!(lines[1], format!("1     {}", "long".repeat(9)));
        assert_eq!(lines[2], "1000  x");
    }
}
