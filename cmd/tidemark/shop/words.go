package shop

// What the shop is made of. The order of the words is part of what a seed means: append only.
var (
	firstNames = []string{
		"Ada", "Alan", "Amina", "Anders", "Barbara", "Carlos", "Chiara", "Dennis", "Edsger", "Elena", "Fatima", "Grace", "Hedy", "Ingrid", "Ivan", "Jin",
		"Kamala", "Katherine", "Leslie", "Linus", "Lucia", "Mateo", "Maryam", "Niklaus", "Noor", "Olga", "Priya", "Radia", "Sofia", "Tim", "Yuki", "Zoë",
	}
	lastNames = []string{
		"Andersen", "Bauer", "Costa", "Dubois", "Eriksson", "Ferrari", "García", "Hopper", "Ivanova", "Jensen", "Kowalski", "Lovelace", "Müller", "Nakamura",
		"O'Brien", "Patel", "Quispe", "Rossi", "Silva", "Tanaka", "Usman", "Virtanen", "Williams", "Yilmaz", "Zhang", "Łukasik",
	}
	cities = []struct{ city, country string }{
		{"Lisbon", "PT"},
		{"Berlin", "DE"},
		{"Paris", "FR"},
		{"Madrid", "ES"},
		{"Milan", "IT"},
		{"Warsaw", "PL"},
		{"Oslo", "NO"},
		{"Zürich", "CH"},
		{"Austin", "US"},
		{"Boston", "US"},
		{"Seattle", "US"},
		{"Toronto", "CA"},
		{"Mexico City", "MX"},
		{"São Paulo", "BR"},
		{"Tokyo", "JP"},
		{"Nairobi", "KE"},
	}
	colours   = []string{"red", "blue", "green", "black", "white", "yellow", "grey", "brown", "orange", "purple"}
	materials = []string{"leather", "cotton", "wool", "linen", "canvas", "steel", "oak", "ceramic", "glass", "bamboo"}
	goods     = []struct{ name, category, use string }{
		{"shoes", "footwear", "for long walks in the city"},
		{"boots", "footwear", "for rain and snow"},
		{"sandals", "footwear", "for warm days at the sea"},
		{"jacket", "clothing", "that keeps the wind out"},
		{"shirt", "clothing", "for work and weekends"},
		{"scarf", "clothing", "soft and warm"},
		{"hat", "clothing", "against the sun"},
		{"bag", "bags", "with room for a laptop"},
		{"backpack", "bags", "for two days in the hills"},
		{"wallet", "bags", "that fits any pocket"},
		{"lamp", "home", "with a warm light"},
		{"chair", "home", "to read in"},
		{"table", "home", "for six friends"},
		{"mug", "kitchen", "that keeps coffee hot"},
		{"bowl", "kitchen", "for soup and salad"},
		{"knife", "kitchen", "that stays sharp"},
		{"kettle", "kitchen", "that sings when it boils"},
		{"notebook", "desk", "with dotted pages"},
		{"pen", "desk", "that never skips"},
		{"clock", "home", "with a quiet tick"},
	}
	qualities = []string{
		"Made by hand in small numbers.", "Made to last for years.", "A gift that people keep.", "Repaired free of charge.", "Our best seller since spring.",
		"Light, and stronger than it looks.", "From recycled material.", "Comes in a cloth bag.",
	}
	statuses = []string{"placed", "paid", "packed", "shipped", "shipped", "delivered", "delivered", "delivered", "delivered", "returned"}
	notes    = []string{
		"Please leave it at the back door.", "A gift: no invoice in the box, please.", "Ring twice, the bell is old.", "Deliver after six in the evening.",
		"The dog is friendly.", "Call me before you come.",
	}
)
