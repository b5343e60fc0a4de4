"""Icons, fonts, help pages and translations."""
