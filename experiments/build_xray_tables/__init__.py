"""Making of the tables of X-ray physics that dartjax ships."""
