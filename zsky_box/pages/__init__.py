"""The browser's pages: Jinja templates of `web/templates` over the domain rooms."""
