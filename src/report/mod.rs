//! Tables and figures from records.
pub struct Source<'a> {
    pub title: &'a str,
    pub grid: &'a str,
}
pub struct Rendered {
    pub markdown: String,
    pub accuracy_csv: Vec<u8>,
    pub runs_csv: Vec<u8>,
    pub svg: String,
    pub png: Vec<u8>,
    pub terminal: String,
}
pub fn render(records: &[crate::store::record::Record], source: &Source) -> crate::Result<Rendered> {
    let _ = source;
    Ok(Rendered {
        markdown: String::new(),
        accuracy_csv: vec![],
        runs_csv: vec![],
        svg: String::new(),
        png: vec![],
        terminal: records.iter().map(|r| format!("{} {:?}\n", r.run_id, r.metrics)).collect(),
    })
}
