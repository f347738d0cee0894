//! [`Printed`]: a table as the commands print it, in Markdown or between horizontal lines.

/// The servers of a load's lines: the gateway, and the ratio to a rival.
const OWN: &str = "pollgate";
const RATIO: &str = "pollgate : ";

/// A table of texts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Printed {
    headers: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Printed {
    /// Takes the first table from what a command has printed.
    pub(super) fn parse(text: &str) -> Self {
        let is_rule = |line: &&str| line.starts_with(['─', '═']);
        let is_line = |line: &&str| is_rule(line) || line.starts_with([' ', '|']);
        let lines = text.lines().skip_while(|line| !is_rule(line) && !line.starts_with('|'));
        let lines: Vec<_> =
            lines.take_while(is_line).filter(|line| !is_rule(line) && !line.starts_with("|-")).collect();
        let cells: Vec<Vec<String>> = match lines.first() {
            Some(first) if first.starts_with('|') => lines.iter().map(|line| between_bars(line)).collect(),
            _ => between_gaps(&lines),
        };
        let mut cells = cells.into_iter();
        Self { headers: cells.next().unwrap_or_default(), rows: cells.collect() }
    }

    /// Returns each line, with the cells of the columns `from` joined. The error is a header that is not there.
    pub(super) fn rows<'a>(&self, from: &[&'a [String]]) -> Result<Vec<Vec<String>>, &'a str> {
        let cell = |row: &Vec<String>, headers: &'a [String]| {
            let cells = headers.iter().map(|header| self.cell(row, header).ok_or(&**header));
            Ok(cells.collect::<Result<Vec<_>, _>>()?.join(" / "))
        };
        self.rows.iter().map(|row| from.iter().map(|headers| cell(row, headers)).collect()).collect()
    }

    /// Returns the medians of the gateway, of its rival, and of their ratios, of the columns `from` joined.
    pub(super) fn beside<'a>(&self, from: &'a [String]) -> Result<Vec<String>, &'a str> {
        let find = |is_wanted: fn(&str) -> bool| {
            self.rows.iter().find(move |row| row.first().is_some_and(|server| is_wanted(server)))
        };
        let lines = [
            find(|server| server == OWN),
            find(|server| server != OWN && !server.starts_with(RATIO)),
            find(|server| server.starts_with(RATIO)),
        ];
        let of_line = |row: Option<&Vec<String>>| {
            let row = row.ok_or("line of a rival")?;
            let cells = from.iter().map(|header| {
                let cell = self.cell(row, header).ok_or(&**header);
                cell.map(|cell| cell.split_once(" (").map_or(cell, |(median, _)| median))
            });
            Ok(cells.collect::<Result<Vec<_>, _>>()?.join(" / "))
        };
        lines.into_iter().map(of_line).collect()
    }

    /// Returns a cell without the mark of the best one. `server` and `form` are the parts of a strategy's name.
    fn cell<'a>(&self, row: &'a [String], header: &str) -> Option<&'a str> {
        if let "server" | "form" = header
            && let Some(name) =
                row.first().filter(|_| self.headers.first().is_some_and(|first| first == "strategy"))
        {
            let (server, form) = name.split_once(": ").unwrap_or((OWN, name));
            return Some(if header == "server" { server } else { form });
        }
        let index = self.headers.iter().position(|known| known == header)?;
        row.get(index).map(|cell| cell.trim_end_matches('*'))
    }
}

fn between_bars(line: &str) -> Vec<String> {
    line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// Splits lines where at least two characters are blank in all of them: cells have a blank on each side.
fn between_gaps(lines: &[&str]) -> Vec<Vec<String>> {
    let lines: Vec<Vec<char>> = lines.iter().map(|line| line.chars().collect()).collect();
    let width = lines.iter().map(Vec::len).max().unwrap_or_default();
    let is_blank = |at: usize| lines.iter().all(|line| line.get(at).is_none_or(|letter| *letter == ' '));
    let (mut columns, mut begin) = (Vec::new(), None);
    for at in 0..=width {
        match begin {
            None if !is_blank(at) => begin = Some(at),
            Some(from) if is_blank(at) && is_blank(at + 1) => {
                columns.push(from..at);
                begin = None;
            }
            _ => {}
        }
    }
    let cell = |line: &Vec<char>, column: &std::ops::Range<usize>| {
        let letters = line.iter().skip(column.start).take(column.len());
        letters.collect::<String>().trim().to_owned()
    };
    lines.iter().map(|line| columns.iter().map(|column| cell(line, column)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn both_kinds_of_printed_tables_are_read() {
        let between_lines = [
            "A verdict, that is no table.",
            "",
            "──────────────────────────────────────────────",
            " strategy                  p50   us/msg   KiB ",
            "══════════════════════════════════════════════",
            " sse                   0.5 ms*     12.5     - ",
            "──────────────────────────────────────────────",
            " nchan: long-poll:5s      1 ms      3.0   2.0 ",
            "──────────────────────────────────────────────",
            "legend   of it",
            "",
        ];
        let in_markdown = "Words.\n\n| strategy | p50 |\n|---|---|\n| sse | 0.5 ms |\n\nMore | words\n";
        let (one, other) = (Printed::parse(&between_lines.join("\n")), Printed::parse(in_markdown));
        let (server, form, p50) = (texts(&["server"]), texts(&["form"]), texts(&["p50", "KiB"]));
        let rows = one.rows(&[&server, &form, &p50]).unwrap();
        assert_eq!(rows[0], ["pollgate", "sse", "0.5 ms / -"]);
        assert_eq!(rows[1], ["nchan", "long-poll:5s", "1 ms / 2.0"]);
        assert_eq!(other.rows(&[&texts(&["strategy"]), &texts(&["p50"])]).unwrap(), [["sse", "0.5 ms"]]);
        assert_eq!(other.rows(&[&texts(&["p99"])[..]]).map_err(str::to_owned), Err("p99".to_owned()));
    }

    #[test]
    fn loads_have_a_line_for_the_gateway_a_rival_and_their_ratio() {
        let text = "───\n server             p50\n═══\n pollgate           82 us (80 us to 90 us)\n───\n \
                    nchan              78 us (78 us to 79 us)\n───\n pollgate : nchan   1.05 (1.01 to 1.10)\n───\n";
        let cells = Printed::parse(text).beside(&texts(&["p50"])).map_err(str::to_owned);
        assert_eq!(cells, Ok(texts(&["82 us", "78 us", "1.05"])));
    }
}
