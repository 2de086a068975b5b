"""The trajectory editor: a small local server and one static page, `flashmotion edit`."""
