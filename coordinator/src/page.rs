//! The page behind an invite link. The same for every id: it neither knows nor tells whether an
//! invite exists, and the code is never typed into a browser.

/// What `/i/{id}` answers. No scripts, no external resources, nothing from the request.
pub(crate) const HTML: &str = include_str!("page.html");

/// Allows the page's own style and nothing else.
pub(crate) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_for_nothing_and_loads_nothing() {
        for absent in [
            "<script", "<form", "<input", "<img", "<link", "<iframe", "src=", "http://", "https://",
            "@import",
        ] {
            assert!(!HTML.to_ascii_lowercase().contains(absent), "the page contains {absent}");
        }
        assert!(HTML.contains("peerloom join"));
    }
}
