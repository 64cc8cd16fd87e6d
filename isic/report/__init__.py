"""Pages for people: pictures and tables of finished predictions. No torch."""
